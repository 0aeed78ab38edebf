//! Long runs: nothing grows, neither objects on the device nor memory nor handles, and every answer stays the same to the bit,
//! however many threads, networks and processes there are at once.
//!
//! A few seconds by default; `AQUATINT_TEST_SOAK=1800` for half an hour of the mixed load.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aquatint::cache::{self, Cache};
use aquatint::frame::{Background, ReadRing};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{
    AdapterOptions, DType, Error, Gpu, Graph, Network, Plan, Result, Scratch, Shares, Tensor, wgpu,
};

/// Tests of one process take turns: what is measured is the process's.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device of one's own, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn open(cache: &Cache) -> Option<Gpu> {
    match Gpu::with_options(&AdapterOptions { cache: cache.clone(), ..AdapterOptions::from_env() }) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| {
        let x = i.wrapping_add(seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        (x ^ (x >> 15)).wrapping_mul(0xc2b2_ae35)
    };
    (0..count as u32).map(|i| (hash(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Weights that all sizes of a network have in common.
fn weights(seed: u32) -> [Tensor; 2] {
    [[12, 5, 3, 3], [5, 12, 3, 3]].map(|shape| {
        let values: Vec<f32> = noise(shape.iter().product(), seed).iter().map(|w| w / 6.0).collect();
        Tensor::from_f32(shape, &values)
    })
}

/// Convolutions with a norm between, for pictures of any size.
fn network([height, width]: [usize; 2], weights: &[Tensor; 2]) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [1, height, width, 5], DType::F32);
    let [first, second] = [0, 1].map(|i| g.weight(&format!("w{i}"), weights[i].clone()));
    let y = g.conv2d(x, first, None, Conv2dOptions::padded(1)).unwrap();
    let y = g.instance_norm(y, None, None, 1e-5).unwrap();
    let y = g.silu(y).unwrap();
    let y = g.conv2d(y, second, None, Conv2dOptions::padded(1)).unwrap();
    let y = g.add(x, y).unwrap();
    g.output("y", y);
    g
}

fn answer(network: &Network) -> Result<Vec<u32>> {
    let shape = network.desc("x")?.shape.clone();
    let input = Tensor::from_f32(shape.clone(), &noise(shape.elements(), 3));
    Ok(network.run(&[("x", &input)])?.remove(0).to_f32().iter().map(|x| x.to_bits()).collect())
}

fn objects(gpu: &Gpu) -> Vec<isize> {
    for _ in 0..3 {
        gpu.wait(gpu.queue().submit([])).unwrap();
    }
    let hal = gpu.device().get_internal_counters().hal;
    let objects = [&hal.buffers, &hal.textures, &hal.texture_views, &hal.bind_groups, &hal.compute_pipelines];
    let others = [&hal.shader_modules, &hal.bind_group_layouts, &hal.buffer_memory, &hal.texture_memory];
    objects.iter().chain(&others).map(|c| c.read()).collect()
}

/// Lets threads share what memory they have freed. glibc keeps it by the thread that had it (in arenas), and the threads of
/// devices that come and go leave pieces in ever more of them: tens of megabytes that are free and resident.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn share_free_memory() {
    // SAFETY: it sets a number of the allocator, under its lock.
    assert_eq!(unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) }, 1, "glibc takes it");
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_free_memory() {}

/// Bytes that were asked for in this process and not freed, the driver's among them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn in_use() -> u64 {
    // SAFETY: it reads the allocator's books, under its locks.
    let books = unsafe { libc::mallinfo2() };
    (books.uordblks + books.hblkhd) as u64
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn in_use() -> u64 {
    0
}

/// Bytes of this process that are in memory, bytes in use, and open files; zeros where that is not known.
fn of_process() -> [u64; 3] {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    [4096 * pages, in_use(), files]
}

#[test]
fn thousands_of_runs() -> Result<()> {
    let _turn = turn();
    let Some(gpu) = open(&Cache::off()) else { return Ok(()) };
    let runs = number("AQUATINT_TEST_RUNS", 1500);
    let network = Network::new(&gpu, &network([6, 7], &weights(1)))?;
    let first = answer(&network)?;
    let mut before = None;
    for run in 0..runs {
        assert_eq!(answer(&network)?, first, "run {run}");
        if run == runs / 5 {
            before = Some((objects(&gpu), of_process()));
        }
    }
    let (there, [memory, used, files]) = before.expect("a fifth is reached");
    assert_eq!(objects(&gpu), there, "objects on the device");
    let [memory_now, used_now, files_now] = of_process();
    let grown = memory_now.saturating_sub(memory);
    println!(
        "figure soak runs: {runs} runs with read-back, the same bits, {} KB more resident and as many open files as after {}",
        grown >> 10,
        runs / 5
    );
    assert!(files_now <= files, "{files_now} open files, and {files} before");
    assert!(grown < 16 << 20, "{grown} bytes more");
    // Threads keep some of what they freed at hand, up to a few hundred kilobytes that count as in use.
    assert!(used_now < used + (512 << 10), "{used_now} bytes in use, and {used} before");
    Ok(())
}

/// What several threads do at once with one device, each over and over.
struct Load<'a> {
    gpu: &'a Gpu,
    until: Instant,
    weights: [[Tensor; 2]; 2],
    /// Sizes of pictures, and what networks of both weights answer.
    known: &'a [([usize; 2], [Vec<u32>; 2])],
    done: [AtomicU64; 6],
}

const WORKERS: [&str; 6] =
    ["runs", "networks opened", "frames", "reloads", "networks beside others", "devices lost"];

impl Load<'_> {
    /// Rounds until the time is over, at least one.
    fn rounds(&self, worker: usize, mut round: impl FnMut(usize) -> Result<()>) -> Result<()> {
        for i in 0.. {
            round(i)?;
            self.done[worker].fetch_add(1, Ordering::Relaxed);
            if Instant::now() >= self.until {
                break;
            }
        }
        Ok(())
    }

    fn work(&self, worker: usize) -> Result<()> {
        let known = |i: usize| &self.known[i % self.known.len()];
        let graph = |i: usize| network(known(i).0, &self.weights[0]);
        let check = |what: &str, i: usize, found: Vec<u32>, of: usize| {
            assert!(found == known(i).1[of], "{what}, round {i}: another answer");
        };
        match worker {
            0 => {
                let network = Network::new(self.gpu, &graph(0))?;
                self.rounds(0, |_| {
                    check("runs", 0, answer(&network)?, 0);
                    Ok(())
                })
            }
            1 => self.rounds(1, |i| {
                check("opened", i, answer(&Network::new(self.gpu, &graph(i))?)?, 0);
                Ok(())
            }),
            2 => {
                let network = Network::new(self.gpu, &graph(1))?;
                answer(&network)?;
                let bindings = network.bind(&[])?;
                let bytes = network.desc("y")?.bytes();
                let mut ring = ReadRing::new(self.gpu, 2, bytes)?;
                self.rounds(2, |i| {
                    let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
                    bindings.record(&mut encoder)?;
                    ring.push_buffer(&mut encoder, network.buffer("y")?, 0, bytes, i as u64)?;
                    let submission = self.gpu.queue().submit([encoder.finish()]);
                    if i % 8 == 7 {
                        self.gpu.wait(submission)?;
                    }
                    while let Some(read) = ring.poll()? {
                        let found = bytemuck::pod_collect_to_vec(&read.bytes);
                        check("frames", 1, found, 0);
                    }
                    Ok(())
                })
            }
            3 => {
                let mut changing = Network::new(self.gpu, &graph(2))?;
                self.rounds(3, |i| {
                    let of = (i + 1) % 2;
                    changing.reload(&network(known(2).0, &self.weights[of]))?;
                    check("reloads", 2, answer(&changing)?, of);
                    Ok(())
                })
            }
            4 => {
                let first = Network::new(self.gpu, &graph(0))?;
                self.rounds(4, |i| {
                    let plan = Plan::compile(&graph(i), self.gpu.target())?;
                    let scratch = Scratch::new(self.gpu, &[&plan])?;
                    let shares = Shares { weights_of: Some(&first), scratch: Some(&scratch) };
                    let beside = Network::sharing(self.gpu, plan, shares)?;
                    check("beside", i, answer(&beside)?, 0);
                    Ok(())
                })
            }
            _ => self.rounds(5, |i| {
                let Some(own) = open(&Cache::off()) else { return Ok(()) };
                let network = Network::new(&own, &graph(i))?;
                let submission = network.submit(2)?;
                own.device().destroy();
                let _ = own.wait(submission);
                assert!(matches!(network.read("y"), Err(Error::DeviceLost { .. })));
                check("rebuilt", i, answer(&network.rebuild(self.gpu)?)?, 0);
                Ok(())
            }),
        }
    }
}

#[test]
fn a_mixed_load() -> Result<()> {
    let _turn = turn();
    // Before there are threads.
    share_free_memory();
    let Some(gpu) = open(&Cache::off()) else { return Ok(()) };
    let seconds = number("AQUATINT_TEST_SOAK", 3);
    let both = [weights(1), weights(2)];
    let known = [[8, 9], [13, 7], [5, 16], [20, 20]].map(|size| {
        (size, both.each_ref().map(|w| answer(&Network::new(&gpu, &network(size, w)).unwrap()).unwrap()))
    });
    // Rounds after which all is dropped; what is there then is compared.
    let rounds = (seconds / 15).clamp(3, 40);
    let mut done = [0u64; 6];
    let mut states: Vec<(Vec<isize>, [u64; 3])> = Vec::new();
    let mut lost = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        let share = Duration::from_secs_f64(seconds as f64 * (round + 1) as f64 / rounds as f64);
        let load = Load {
            gpu: &gpu,
            until: start + share,
            weights: both.clone(),
            known: &known,
            done: Default::default(),
        };
        std::thread::scope(|scope| {
            let load = &load;
            let threads: Vec<_> = (0..6).map(|worker| scope.spawn(move || load.work(worker))).collect();
            for (thread, what) in threads.into_iter().zip(WORKERS) {
                let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        });
        done.iter_mut().zip(&load.done).for_each(|(all, one)| *all += one.load(Ordering::Relaxed));
        states.push((objects(&gpu), of_process()));
        lost.push(done[5]);
        println!(
            "round {round}: {:?}, {:?}, {done:?}",
            states[states.len() - 1].0,
            states[states.len() - 1].1
        );
    }
    let third = states.len() / 3;
    let ((there, [memory, used, files]), (there_now, [memory_now, used_now, files_now])) =
        (states[third].clone(), states[states.len() - 1].clone());
    let counted: Vec<String> = WORKERS.iter().zip(done).map(|(what, n)| format!("{n} {what}")).collect();
    let more = |now: u64, before: u64| now as i64 - before as i64;
    let (grown, left) = (more(memory_now, memory), more(used_now, used));
    println!(
        "figure soak load: {:.0} s, {}; {} KB more in use and {} KB more resident, {} more open files than after a third",
        start.elapsed().as_secs_f64(),
        counted.join(", "),
        left / 1024,
        grown / 1024,
        more(files_now, files),
    );
    assert_eq!(there_now, there, "objects on the device");
    assert!(files_now <= files, "open files: {files_now} and {files} before");
    // Mesa leaves 128 bytes each time that it is loaded, without anything of ours or wgpu's as well; what is left of a network
    // or a pipeline would be more. The rest is what threads keep at hand.
    let devices = (done[5] - lost[third]) as i64;
    assert!(left < (1 << 20) + 1024 * devices, "{left} bytes more in use after {devices} more devices");
    // Until many devices were there beside all the rest, memory is still taken for the first time.
    let most = if lost[third] < 100 { 48 << 20 } else { 16 << 20 };
    assert!(grown < most, "{grown} bytes more resident");
    Ok(())
}

/// Threads that all want the same kernels, of which none is there yet.
#[test]
fn threads_compile_at_once() -> Result<()> {
    let _turn = turn();
    let Some(gpu) = open(&Cache::off()) else { return Ok(()) };
    let own = weights(1);
    let sizes = [[8, 9], [13, 7]];
    let wanted = sizes.map(|size| answer(&Network::new(&gpu, &network(size, &own)).unwrap()).unwrap());
    for _ in 0..2 {
        let Some(gpu) = open(&Cache::off()) else { return Ok(()) };
        let networks: Vec<Background<Network>> = (0..8)
            .map(|i| {
                let (gpu, graph) = (gpu.clone(), network(sizes[i % 2], &own));
                Background::start(move || Network::new(&gpu, &graph))
            })
            .collect::<Result<_>>()?;
        for (i, network) in networks.into_iter().enumerate() {
            let network = network.wait().expect("it was not taken")?;
            assert!(answer(&network)? == wanted[i % 2], "network {i}");
        }
        // Each kernel is there once, whoever was first.
        let distinct = gpu.device().get_internal_counters().hal.compute_pipelines.read();
        let network = Network::new(&gpu, &network(sizes[0], &own))?;
        assert!(answer(&network)? == wanted[0]);
        assert_eq!(gpu.device().get_internal_counters().hal.compute_pipelines.read(), distinct);
    }
    Ok(())
}

const FOLDER: &str = "AQUATINT_TEST_CACHE_OF_TWO";

/// Not a test: what [`processes_share_a_folder`] starts.
#[test]
fn opens_and_keeps() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let cache = Cache::at(Path::new(&folder));
    let own = weights(1);
    let mut first = None;
    for round in 0..5 {
        let gpu = open(&cache).expect("its parent has one");
        // Another kernel each time, so that there is something to write.
        let size = [8 + round, 9 + std::process::id() as usize % 5];
        answer(&Network::new(&gpu, &network(size, &own)).unwrap()).unwrap();
        let found = answer(&Network::new(&gpu, &network([8, 9], &own)).unwrap()).unwrap();
        assert!(found == *first.get_or_insert_with(|| found.clone()), "round {round}");
        gpu.keep_pipelines();
    }
    println!("answer {:?}", first.expect("five rounds"));
}

#[test]
fn processes_share_a_folder() {
    let _turn = turn();
    let Some(gpu) = open(&Cache::off()) else { return };
    let wanted = answer(&Network::new(&gpu, &network([8, 9], &weights(1))).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "opens_and_keeps", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut both = [start(), start()];
    let (mut seen, mut whole) = (0, 0);
    while both.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            if name.starts_with('.') || bytes.len() < 32 {
                assert!(name.starts_with('.'), "{name} is short: {} bytes", bytes.len());
                continue;
            }
            seen += 1;
            let end = 32 + u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
            let identity = std::str::from_utf8(&bytes[32..end]).unwrap();
            whole += usize::from(cache::open(&bytes, b"pipe", identity).is_some());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(seen, whole, "every file that could be read was whole");
    for child in both {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains(&format!("answer {wanted:?}")), "{said}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        left.len() <= 1 && left.iter().all(|n| n.to_string_lossy().starts_with("pipelines-")),
        "{left:?}"
    );
    println!(
        "figure soak cache: two processes, five devices each, on one folder: {seen} looks at its file, whole each time"
    );
}

/// What is let go of while it is made.
#[test]
fn networks_that_nobody_waits_for() -> Result<()> {
    let _turn = turn();
    let Some(gpu) = open(&Cache::off()) else { return Ok(()) };
    let own = weights(1);
    let kept = Network::new(&gpu, &network([8, 9], &own))?;
    let wanted = answer(&kept)?;
    let before = objects(&gpu);
    for _ in 0..10 {
        let (there, graph) = (gpu.clone(), network([8, 9], &own));
        drop(Background::start(move || Network::new(&there, &graph))?);
        assert!(answer(&kept)? == wanted);
    }
    let start = Instant::now();
    // The threads let go of what they made.
    while objects(&gpu) != before && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(objects(&gpu), before);
    assert!(gpu.device().poll(wgpu::PollType::Poll).is_ok());
    Ok(())
}
