//! Launch contracts of `patch.ptx`.

use crate::contract::{Contract, ContractInfo, Geometry, Kernel, contract};
use crate::error::Result;
use crate::mat::{Mat, MatMut, grid_limit, shape, shapes};
use crate::pointer::{Pointer, Ptr, PtrMut};

contract! {
    /// Images and how they are cut.
    #[derive(PartialEq, Eq)]
    pub struct Grid {
        /// Images.
        pub host batch: usize,
        /// Channels.
        pub channels: usize,
        /// Pixels.
        pub height: usize,
        /// Pixels.
        pub width: usize,
        /// Side of a patch; divides height and width.
        pub patch: usize,
        /// Columns ordered (row, column, channel) instead of (channel, row, column).
        pub channel_last: bool as last,
    }
}
contract! {
    /// Images to patches.
    pub struct Patchify: PATCH, "dis_patchify" {
        image: Ptr<f32>, patches: MatMut, flat grid: Grid,
    }
    pub fn new;
}
contract! {
    /// Patches to images.
    pub struct Unpatchify: PATCH, "dis_unpatchify" {
        image: PtrMut<f32>, patches: Mat, flat grid: Grid,
    }
    pub fn new;
}

/// The declarations of this family.
pub const CONTRACTS: &[ContractInfo] = &[Patchify::INFO, Unpatchify::INFO];

impl Grid {
    /// Checks the sizes; the shape of the patches.
    fn fit<A>(
        &self,
        kernel: &'static str,
        image: Pointer<f32, A>,
    ) -> Result<([usize; 3], Geometry)> {
        let p = self.patch;
        if p == 0 || !self.height.is_multiple_of(p) || !self.width.is_multiple_of(p) {
            let what = format!("{} x {} in patches of {p}", self.height, self.width);
            return Err(shape(kernel, what));
        }
        let plane = self.height * self.width;
        if plane > i32::MAX as usize {
            return Err(shape(kernel, format!("images of {plane} pixels")));
        }
        image.holds(kernel, "image", (self.batch * self.channels * plane) as u64)?;
        let tokens = (self.height / p) * (self.width / p);
        let grid = [
            plane.div_ceil(256) as u32,
            grid_limit(kernel, "the number of channels", self.channels)?,
            grid_limit(kernel, "the number of samples", self.batch)?,
        ];
        let patches = [self.batch, tokens, p * p * self.channels];
        Ok((patches, Geometry::new(grid, [256, 1, 1])))
    }
}

impl Kernel for Patchify {
    fn fit(&mut self) -> Result<Geometry> {
        let (expected, geometry) = self.grid.fit(Self::NAME, self.image)?;
        shapes(Self::NAME, &[("patches", &self.patches, expected)])?;
        Ok(geometry)
    }
}

impl Kernel for Unpatchify {
    fn fit(&mut self) -> Result<Geometry> {
        let (expected, geometry) = self.grid.fit(Self::NAME, self.image)?;
        shapes(Self::NAME, &[("patches", &self.patches, expected)])?;
        Ok(geometry)
    }
}
