//! Embedding tables and image patches.

use dis_tensor::{Backend, PatchGrid, PatchOrder, Reference, Tokens, TokensMut};
use proptest::prelude::*;

use crate::draw::{CPUS, Draw, check};
use crate::operation::Operation;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_by_id(count in 0usize..20, entries in 1usize..12, channels in 1usize..50, seed: u64) {
        let mut d = Draw::new(seed);
        let ids: Vec<u32> = (0..count).map(|_| d.below(entries) as u32).collect();
        let table = d.view(1, entries, channels);
        let rows = d.view(count, 1, channels);
        check(&Operation::Gather(ids.clone()), &[table.clone(), rows.clone()], 0.0);
        check(&Operation::ScatterAdd(ids), &[rows, table], 1e-6);
    }

    #[test]
    fn patches(
        batch in 0usize..4,
        channels in 1usize..5,
        down in 1usize..5,
        across in 1usize..5,
        patch in 1usize..5,
        first: bool,
        seed: u64,
    ) {
        let order = if first { PatchOrder::ChannelFirst } else { PatchOrder::ChannelLast };
        let (height, width) = (down * patch, across * patch);
        let grid = PatchGrid { batch, channels, height, width, patch, order };
        let mut d = Draw::new(seed);
        let image = d.dense(grid.elements());
        let rows = d.view(batch, grid.tokens(), grid.patch_len());
        check(&Operation::Patchify(grid), &[image.clone(), rows.clone()], 0.0);
        check(&Operation::Unpatchify(grid), &[rows, image], 0.0);
    }
}

#[test]
fn many_images_are_shared_among_threads() {
    let mut d = Draw::new(4);
    let grid = PatchGrid {
        batch: 9,
        channels: 3,
        height: 32,
        width: 32,
        patch: 2,
        order: PatchOrder::ChannelFirst,
    };
    let (image, rows) = (d.dense(grid.elements()), d.view(9, 256, 12));
    check(
        &Operation::Patchify(grid),
        &[image.clone(), rows.clone()],
        0.0,
    );
    check(&Operation::Unpatchify(grid), &[rows, image], 0.0);
}

/// The order of values is part of the checkpoint format, so it is spelled out once.
#[test]
fn patch_orders_are_those_of_checkpoints() {
    let orders = [
        // (channel, row, column) of the second patch of a 2-channel image of 2 x 4.
        (
            PatchOrder::ChannelFirst,
            [2.0, 3.0, 6.0, 7.0, 10.0, 11.0, 14.0, 15.0],
        ),
        (
            PatchOrder::ChannelLast,
            [2.0, 10.0, 3.0, 11.0, 6.0, 14.0, 7.0, 15.0],
        ),
    ];
    for (order, expected) in orders {
        let grid = PatchGrid {
            batch: 1,
            channels: 2,
            height: 2,
            width: 4,
            patch: 2,
            order,
        };
        let b = Reference::new();
        let image = b.from_f32(&(0u8..16).map(f32::from).collect::<Vec<_>>());
        let mut out = b.zeros(16);
        let layout = dis_tensor::Layout::dense(1, 2, 8);
        b.patchify(&image, grid, TokensMut::new(&mut out, layout))
            .unwrap();
        assert_eq!(&out[8..], &expected);
    }
}

#[test]
fn unpatchify_inverts_patchify() {
    let b = &CPUS[1];
    let mut d = Draw::new(6);
    for order in [PatchOrder::ChannelFirst, PatchOrder::ChannelLast] {
        let grid = PatchGrid {
            batch: 2,
            channels: 3,
            height: 8,
            width: 12,
            patch: 4,
            order,
        };
        let image = d.dense(grid.elements()).data;
        let layout = dis_tensor::Layout::dense(2, grid.tokens(), grid.patch_len());
        let mut rows = b.alloc(layout.elements());
        b.patchify(&b.from_f32(&image), grid, TokensMut::new(&mut rows, layout))
            .unwrap();
        let mut back = b.alloc(image.len());
        b.unpatchify(Tokens::new(&rows, layout), grid, &mut back)
            .unwrap();
        assert_eq!(back.as_slice(), image.as_slice());
    }
}
