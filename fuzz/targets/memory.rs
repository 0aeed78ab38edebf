//! What a plan does with memory, followed launch by launch without knowing how places were found: each kernel reads the
//! numbers of the tensors that its operation reads, and nothing that was written over, left over or never written.

use aquatint::ops::Operator as _;
use aquatint::plan::{BufferId, Dispatch};
use aquatint::shader::Access;
use aquatint::{Graph, Plan, Source, ValueId};

/// Whose numbers lie somewhere, and of which run; those of the load, of weights and of inputs are of run 0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Tensor(ValueId, usize),
    /// Between the launches of an operation.
    Scratch(ValueId, usize),
}

struct Machine<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    constant: Vec<bool>,
    /// Of each value the one whose memory it is, which is another for views.
    root: Vec<ValueId>,
    buffers: Vec<Option<Held>>,
    textures: Vec<Option<Held>>,
    /// From 1; 0 while loading.
    run: usize,
}

/// Follows the load and two runs, then counts bytes.
pub fn check(graph: &Graph, plan: &Plan) {
    let mut root: Vec<ValueId> = Vec::new();
    let index =
        |graph: &Graph, id: ValueId| graph.values().position(|(other, _)| other == id).expect("in the graph");
    for (id, value) in graph.values() {
        root.push(match &value.source {
            Source::Op { op, inputs } if op.is_view() => root[index(graph, inputs[0])],
            _ => id,
        });
    }
    let mut machine = Machine {
        graph,
        plan,
        constant: graph.constants(),
        root,
        buffers: vec![None; plan.buffers.len()],
        textures: vec![None; plan.textures.len()],
        run: 0,
    };
    for (id, value) in graph.values() {
        if let Some(place) = plan.place(id) {
            let bytes = plan.buffers[place].bytes;
            assert!(bytes >= value.desc.bytes(), "{} of {} in {bytes} bytes", value.name, value.desc);
            // Weights, those that the host packs among them, inputs and states.
            let given = match &value.source {
                Source::Op { op, inputs } => inputs.is_empty() && !op.is_view(),
                _ => true,
            };
            if given {
                assert!(machine.buffers[place].is_none(), "{} lies where another tensor does", value.name);
                machine.buffers[place] = Some(Held::Tensor(id, 0));
            }
        }
    }
    machine.load();
    machine.run();
    machine.run();
    bytes(plan);
}

impl Machine<'_> {
    fn position(&self, id: ValueId) -> usize {
        self.graph.values().position(|(other, _)| other == id).expect("in the graph")
    }

    /// What should lie where the tensor of a value does.
    fn wanted(&self, id: ValueId) -> Held {
        let root = self.root[self.position(id)];
        let given = !matches!(self.graph.value(root).source, Source::Op { .. });
        let run = if given || self.constant[self.position(root)] { 0 } else { self.run };
        // States are written at the end of each run.
        let run = match self.graph.value(root).source {
            Source::State(_) if self.is_updated(root) => self.run.saturating_sub(1),
            _ => run,
        };
        Held::Tensor(root, run)
    }

    fn is_updated(&self, state: ValueId) -> bool {
        self.graph.updates().iter().any(|(updated, _)| *updated == state)
    }

    fn load(&mut self) {
        self.launches(true);
        for fill in &self.plan.load_fills {
            self.fill(fill.buffer, fill.texture, fill.texels);
        }
        // What only the load needed is gone.
        for (held, buffer) in self.buffers.iter_mut().zip(&self.plan.buffers) {
            if !buffer.resident() {
                *held = None;
            }
        }
    }

    fn run(&mut self) {
        self.run += 1;
        self.launches(false);
        let (graph, plan) = (self.graph, self.plan);
        for ((name, id), port) in graph.outputs().iter().zip(&plan.outputs) {
            assert_eq!(self.buffers[port.buffer], Some(self.wanted(*id)), "output {name}");
        }
        for (&(state, value), &(from, to, bytes)) in graph.updates().iter().zip(&plan.copies) {
            let name = &graph.value(state).name;
            assert_ne!(from, to, "state {name} is copied onto itself");
            assert!(bytes <= plan.buffers[from].bytes.min(plan.buffers[to].bytes), "state {name}");
            assert_eq!(self.buffers[from], Some(self.wanted(value)), "what state {name} becomes");
            assert_eq!(Some(to), plan.place(state));
            self.buffers[to] = Some(Held::Tensor(state, self.run));
        }
    }

    fn fill(&mut self, buffer: BufferId, texture: usize, texels: u32) {
        let (bytes, shown) = (self.plan.buffers[buffer].bytes, &self.plan.textures[texture]);
        assert!(u64::from(texels) * 16 <= bytes, "{texels} texels of {bytes} bytes");
        assert!(u64::from(texels) <= u64::from(shown.width) * u64::from(shown.height));
        self.textures[texture] = self.buffers[buffer];
    }

    fn launches(&mut self, loading: bool) {
        let plan = self.plan;
        let all = if loading { &plan.load } else { &plan.run };
        let mut done = 0;
        for (value, _, range) in plan.operations().filter(|(_, of_load, _)| *of_load == loading) {
            assert_eq!(range.start, done, "every launch is an operation's");
            done = range.end;
            for launch in &all[range] {
                self.launch(value, launch);
            }
            let place = plan.place(value).expect("what is computed lies somewhere");
            assert_eq!(self.buffers[place], Some(self.wanted(value)), "{}", self.graph.value(value).name);
        }
        assert_eq!(done, all.len(), "every launch is an operation's");
    }

    fn launch(&mut self, value: ValueId, launch: &Dispatch) {
        let plan = self.plan;
        let Source::Op { inputs, .. } = &self.graph.value(value).source else {
            panic!("launches of no operation")
        };
        let own = [Held::Tensor(value, self.run), Held::Scratch(value, self.run)];
        let allowed: Vec<Held> = inputs.iter().map(|&i| self.wanted(i)).chain(own).collect();
        let may = |held: Option<Held>, what: &str| {
            let known = held.is_some_and(|held| allowed.contains(&held));
            assert!(known, "{} reads {what}: {held:?}, expected of {allowed:?}", launch.label);
        };
        for fill in &launch.fills {
            may(self.buffers[fill.buffer], "as a texture");
            self.fill(fill.buffer, fill.texture, fill.texels);
        }
        for &texture in &launch.textures {
            may(self.textures[texture], "a texture");
        }
        let bindings = &launch.shader.bindings;
        assert_eq!((bindings.len(), bindings.len()), (launch.buffers.len(), launch.extents.len()));
        for (i, (binding, &buffer)) in bindings.iter().zip(&launch.buffers).enumerate() {
            let (extent, bytes) = (launch.extents[i], plan.buffers[buffer].bytes);
            assert!(extent <= bytes, "{} binds {extent} of {bytes} bytes", launch.label);
            let others = launch.buffers.iter().enumerate().filter(|(j, other)| *j != i && **other == buffer);
            match binding.access {
                Access::Read => may(self.buffers[buffer], &binding.name),
                Access::ReadWrite => assert_eq!(others.count(), 0, "{} writes what it reads", launch.label),
            }
        }
        for (binding, &buffer) in bindings.iter().zip(&launch.buffers) {
            if binding.access == Access::ReadWrite {
                let whole = plan.place(value) == Some(buffer);
                self.buffers[buffer] = Some(if whole { own[0] } else { own[1] });
            }
        }
        let groups = u64::from(launch.groups[0]) * u64::from(launch.groups[1]) * u64::from(launch.groups[2]);
        assert!(
            groups > 0 && launch.groups.iter().all(|&n| n <= plan.target.max_workgroups),
            "{:?}",
            launch.groups
        );
    }
}

/// What is said of memory before there is any, against what runs touch.
fn bytes(plan: &Plan) {
    let mut needed = vec![false; plan.buffers.len()];
    for launch in &plan.run {
        launch.buffers.iter().for_each(|&id| needed[id] = true);
        launch.fills.iter().for_each(|fill| needed[fill.buffer] = true);
    }
    let mut ports = vec![false; plan.buffers.len()];
    for port in plan.inputs.iter().chain(&plan.states).chain(&plan.outputs) {
        (needed[port.buffer], ports[port.buffer]) = (true, true);
    }
    plan.copies.iter().for_each(|&(from, to, _)| (needed[from], needed[to]) = (true, true));
    let sum = |wanted: &[bool]| -> u64 {
        plan.buffers.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(buffer, _)| buffer.bytes).sum()
    };
    for (buffer, needed) in plan.buffers.iter().zip(&needed) {
        assert_eq!(buffer.resident(), *needed, "{}, {}", buffer.label, buffer.role_name());
    }
    let textures: u64 =
        plan.textures.iter().map(|t| 16 * u64::from(t.width) * u64::from(t.height.next_multiple_of(4))).sum();
    let alignment = u64::from(plan.target.uniform_alignment);
    let uniforms: u64 = plan.run.iter().map(|d| (d.params.len() as u64).next_multiple_of(alignment)).sum();
    let memory = plan.memory();
    assert_eq!(memory.held, sum(&needed) + textures + uniforms, "bytes that are held");
    assert_eq!(memory.ports, sum(&ports), "bytes of inputs, states and outputs");
    assert!(memory.peak >= memory.held);
}
