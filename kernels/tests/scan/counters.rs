//! What the forward scan costs, counted.

use super::case::{Device, Placed, PlacedDirection, Problem, Setup};
use dis_kernels::scan::{Forward, Variant};
use dis_kernels::sim::{Counters, Options};

/// One forward launch of both directions without checkpoints, as sampling does it.
fn forward(shape: [usize; 4], variant: Variant, entry: &str) -> Counters {
    let problem = Problem::new(&Setup::plain(shape));
    let device = Device::new(Options::default());
    let placed: Vec<_> = problem
        .directions
        .iter()
        .map(|dir| PlacedDirection::new(&device, &problem, dir))
        .collect();
    let walks: Vec<_> = placed.iter().map(|dir| dir.forward(false)).collect();
    let y = device.put(&problem.y);
    let z = problem.z.as_ref().map(|z| device.put(z));
    let z = z.as_ref().map(Placed::mat);
    let forward = Forward::with_variant(variant, &walks, y.mat_mut(), false, z).unwrap();
    forward.launch(&device.sim).unwrap();
    device.sim.counters()[entry]
}

/// Both directions in one launch at the published length: every stream is read once a direction, z
/// and y once, B and C once a block and direction; the first direction's y makes one round trip.
#[test]
fn forward_scan_moves_few_bytes_and_does_few_special_operations() {
    const ENTRY: &str = "dis_scan_forward_n16";
    let shape = [2, 257, 736, 16];
    let [batch, tokens, channels, states] = shape.map(|x| x as u64);
    let cost = forward(shape, Variant::N16, ENTRY);
    let elements = batch * tokens * channels;
    let blocks = batch * channels.div_ceil(128);
    // u, delta; B, C; A, D, bias.
    let direction = 2 * elements + blocks * tokens * 2 * states + batch * channels * (states + 2);
    let loads = 4 * (2 * direction + elements /* z */ + elements/* partial y */);
    let stores = 4 * (elements /* y */ + elements/* partial y */);
    assert_eq!(cost.global_load_bytes, loads);
    assert_eq!(cost.global_store_bytes, stores);
    // What a kernel with all the memory on chip that it wants would have to move.
    let minimum = loads + stores - 2 * 4 * elements;
    let round_trip = 2 * 4 * elements;
    let moved = cost.global_load_bytes + cost.global_store_bytes;
    assert!(moved as f64 <= 1.10 * (minimum + round_trip) as f64);
    // In sectors, so with what warps fetch but do not use.
    let sectors = 32 * cost.sectors;
    assert!(
        sectors as f64 <= 1.10 * (minimum + round_trip) as f64,
        "{sectors} for {minimum} + {round_trip}"
    );
    // One exponential a state and direction; one for each softplus, two for the gate.
    assert_eq!(cost.special, elements * (2 * states + 4));
    assert!(cost.special <= elements * (2 * states + 4));
    // Shared memory is read by whole warps at one address, and written row by row.
    assert_eq!(cost.bank_conflicts, 0);
}

/// No token is walked that does not exist: the work is proportional to their number.
#[test]
fn forward_scan_does_no_work_on_padding() {
    let cost = |tokens| forward([1, tokens, 128, 16], Variant::N16, "dis_scan_forward_n16");
    let (a, b, c) = (cost(256), cost(257), cost(258));
    assert_eq!(
        (b.special - a.special, c.special - b.special),
        (128 * 36, 128 * 36)
    );
    assert_eq!(257 * (c.special - b.special), b.special);
    // The 257th token brings a tile of its own, with one row in it.
    let tile = b.instructions - a.instructions;
    let token = c.instructions - b.instructions;
    assert!(tile < 2 * token, "{tile} {token}");
    assert!(b.fma - a.fma == c.fma - b.fma);
}

/// The directions that meet halfway read and write as much as those that follow one another: the
/// gate only by the second visitor of a token.
#[test]
fn walks_that_meet_move_few_bytes() {
    let shape = [1, 257, 64, 16];
    let [_, tokens, channels, states] = shape.map(|x| x as u64);
    let cost = forward(shape, Variant::Split16, "dis_scan_forward_split16");
    let (elements, blocks) = (tokens * channels, channels / 32);
    // u, delta; B, C; A; D and the bias, which each of four lanes reads.
    let direction =
        2 * elements + blocks * tokens * 2 * states + channels * states + 4 * 2 * channels;
    let loads = 2 * direction + elements /* z */ + elements /* partial y */;
    assert_eq!(cost.global_load_bytes, 4 * loads);
    assert_eq!(cost.global_store_bytes, 4 * 2 * elements);
}

/// Splitting a channel's states over lanes repeats none of their work.
#[test]
fn lanes_share_the_special_operations() {
    let elements = 37 * 33;
    for (variant, entry) in [
        (Variant::Split16, "dis_scan_forward_split16"),
        (Variant::Lanes4, "dis_scan_forward_lanes4"),
        (Variant::Lanes8, "dis_scan_forward_lanes8"),
    ] {
        let cost = forward([1, 33, 37, 16], variant, entry);
        assert_eq!(cost.bank_conflicts, 0, "{entry}");
        let states = cost.special - elements * 4;
        // Channels that pad the last block walk along, without inputs.
        assert!(
            states >= elements * 32 && states < elements * 32 * 2,
            "{entry} {states}"
        );
    }
}
