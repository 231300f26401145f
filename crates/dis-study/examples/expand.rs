//! The runs that a study's description stands for, without running any of them.
//! `cargo run -p dis-study --example expand -- studies/digits.toml`

use dis_study::{StudyConfig, expand};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let smoke = concat!(env!("CARGO_MANIFEST_DIR"), "/../../studies/smoke.toml");
    let path = std::env::args().nth(1).unwrap_or_else(|| smoke.into());
    let study = StudyConfig::load(path.as_ref())?;
    let grid = expand(&study)?;
    for variant in &grid.variants {
        println!("{}", variant.name);
    }
    assert!(grid.variants.len() > 1, "a study compares something");
    Ok(())
}
