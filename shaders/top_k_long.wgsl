// dst[o, j, k] = the i at which src[o, i, k] is the j-th largest; of equals the first comes first
//
// Over the middle dimension of [outer, size, inner], for long lines: one workgroup does one line. Eight bits at a time, by
// counting how often each value of them occurs, it finds the key of the last element that is kept; among those that
// have this key, in the same way, the index of the last one (radix selection). What is kept, with room up to
// the next power of two, is then sorted by a bitonic network.

alias Elem = f32;

struct Params {
    lines: u32, // outer · inner
    size: u32,
    inner: u32,
    keep: u32,
    room: u32, // for each line, a power of two and at least `keep`
    digits: u32, // of an index, each of eight bits
}

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> src: array<Elem>;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>; // [lines, room]
@group(0) @binding(2) var<storage, read_write> places: array<u32>; // [lines, room]
@group(0) @binding(3) var<storage, read_write> dst: array<i32>;
@group(0) @binding(4) var<uniform> P: Params;

// What the next eight bits may be, and how many have them.
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> counter: atomic<u32>;

struct Search {
    prefix: u32, // the bits found so far
    wanted: u32, // how many of those that have them are kept
    having: u32, // how many have them
}
var<workgroup> search: Search;

// #include lib/index
// #include lib/ranking

fn key_of(x: Elem) -> u32 {
    return key_of_f32(f32(x));
}

// The bits of x above the lowest `shift + 8`.
fn above(x: u32, shift: u32) -> u32 {
    return select(x >> (shift + 8u), 0u, shift >= 24u);
}

fn before(key: u32, place: u32, other_key: u32, other_place: u32) -> bool {
    return key > other_key || (key == other_key && place < other_place);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let line = linear_group(group, groups);
    if (line >= P.lines) {
        return;
    }
    let first = line / P.inner * P.size * P.inner + line % P.inner;
    let room = line * P.room;
    if (local == 0u) {
        search = Search(0u, P.keep, P.size);
        atomicStore(&counter, 0u);
    }

    // The key of the last one kept, its highest bits first: larger keys come first.
    for (var digit = 0u; digit < 4u; digit++) {
        let shift = 24u - 8u * digit;
        atomicStore(&bins[local], 0u);
        let prefix = workgroupUniformLoad(&search).prefix; // and all bins are empty
        for (var i = local; i < P.size; i += THREADS) {
            let key = key_of(src[first + i * P.inner]);
            if (above(key, shift) == prefix) {
                atomicAdd(&bins[(key >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier(); // all have counted
        if (local == 0u) {
            var wanted = search.wanted;
            var bin = 255u;
            while (bin > 0u && atomicLoad(&bins[bin]) < wanted) {
                wanted -= atomicLoad(&bins[bin]);
                bin--;
            }
            search = Search((prefix << 8u) | bin, wanted, atomicLoad(&bins[bin]));
        }
        workgroupBarrier(); // the bits are found before the bins are emptied
    }
    let found = workgroupUniformLoad(&search);
    let last = found.prefix;

    // The index of the last one kept among those with that key: smaller indices come first.
    var end = 0xffffffffu;
    if (found.wanted < found.having) {
        workgroupBarrier(); // everybody has read what was found
        if (local == 0u) {
            search.prefix = 0u;
        }
        for (var digit = P.digits; digit > 0u; digit--) {
            let shift = 8u * digit - 8u;
            atomicStore(&bins[local], 0u);
            let prefix = workgroupUniformLoad(&search).prefix; // and all bins are empty
            for (var i = local; i < P.size; i += THREADS) {
                if (key_of(src[first + i * P.inner]) == last && above(i, shift) == prefix) {
                    atomicAdd(&bins[(i >> shift) & 255u], 1u);
                }
            }
            workgroupBarrier(); // all have counted
            if (local == 0u) {
                var wanted = search.wanted;
                var bin = 0u;
                while (bin < 255u && atomicLoad(&bins[bin]) < wanted) {
                    wanted -= atomicLoad(&bins[bin]);
                    bin++;
                }
                search = Search((prefix << 8u) | bin, wanted, 0u);
            }
            workgroupBarrier(); // the bits are found before the bins are emptied
        }
        end = workgroupUniformLoad(&search).prefix;
    }

    for (var i = local; i < P.size; i += THREADS) {
        let key = key_of(src[first + i * P.inner]);
        if (key > last || (key == last && i <= end)) {
            let slot = min(atomicAdd(&counter, 1u), P.room - 1u);
            keys[room + slot] = key;
            places[room + slot] = i;
        }
    }
    for (var slot = P.keep + local; slot < P.room; slot += THREADS) {
        keys[room + slot] = 0u;
        places[room + slot] = 0xffffffffu; // after every element
    }
    storageBarrier(); // all that is kept is there

    for (var run = 2u; run <= P.room; run *= 2u) {
        for (var step = run / 2u; step > 0u; step /= 2u) {
            for (var t = local; t < P.room / 2u; t += THREADS) {
                // The t-th pair of places that differ in this bit.
                let low = 2u * t - (t & (step - 1u));
                let high = low + step;
                let descending = (low & run) == 0u;
                let a = room + low;
                let b = room + high;
                let wrong = before(keys[b], places[b], keys[a], places[a]) == descending;
                if (wrong) {
                    let key = keys[a];
                    let place = places[a];
                    keys[a] = keys[b];
                    places[a] = places[b];
                    keys[b] = key;
                    places[b] = place;
                }
            }
            storageBarrier(); // this step is done
        }
    }
    for (var j = local; j < P.keep; j += THREADS) {
        dst[(line / P.inner * P.keep + j) * P.inner + line % P.inner] = i32(min(places[room + j], P.size - 1u));
    }
}
