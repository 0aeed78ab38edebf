// Lines of numbers that several threads work on: a workgroup has LINES lines and THREADS threads for each. What each of
// them has made of its numbers is joined through workgroup memory, in an order that is always the same: first FAN parts by one
// thread, then what came of those by every thread for itself, which takes two barriers whatever THREADS is.
//
// The kernel that includes this defines the alias `Part`, and `join`, which makes one part of two.

const THREADS: u32 = 32u; // of a line
const LINES: u32 = 4u; // of a workgroup
const FAN: u32 = 8u; // divides THREADS, about its square root
// Whether neighbouring threads work on neighbouring lines, or else on one: whichever way they read neighbouring numbers.
const ACROSS: bool = false;
const WORKGROUP: u32 = THREADS * LINES;

var<workgroup> parts: array<Part, WORKGROUP>;
var<workgroup> fans: array<Part, WORKGROUP / FAN>;

// Which of the workgroup's lines a thread works on, and which of that line's threads it is.
fn line_and_lane(local: u32) -> vec2<u32> {
    if (ACROSS) {
        return vec2<u32>(local % LINES, local / LINES);
    }
    return vec2<u32>(local / THREADS, local % THREADS);
}

fn place_of(line: u32, lane: u32) -> u32 {
    if (ACROSS) {
        return lane * LINES + line;
    }
    return line * THREADS + lane;
}

// What the parts of all threads of a line are together. All threads of the workgroup call this at the same time; after
// its first barrier nobody reads what was joined the last time.
fn joined(part: Part, line: u32, lane: u32) -> Part {
    if (THREADS == 1u) {
        return part;
    }
    parts[place_of(line, lane)] = part;
    workgroupBarrier(); // the parts are there
    if (lane < THREADS / FAN) {
        var fan = parts[place_of(line, lane)];
        for (var k = 1u; k < FAN; k++) {
            fan = join(fan, parts[place_of(line, lane + k * (THREADS / FAN))]);
        }
        fans[line * (THREADS / FAN) + lane] = fan;
    }
    workgroupBarrier(); // the fans are there
    var all = fans[line * (THREADS / FAN)];
    for (var k = 1u; k < THREADS / FAN; k++) {
        all = join(all, fans[line * (THREADS / FAN) + k]);
    }
    return all;
}
