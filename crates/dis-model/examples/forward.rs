//! DiS-S/2 at 32 x 32: what it costs, and one forward pass with weights as initialised.
//! `cargo run --release -p dis-model --example forward`

use dis_model::cost::Cost;
use dis_model::{Condition, Ctx, DisConfig, DisModel, ModelInput};
use dis_tensor::{Backend, Cpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = DisConfig::zoo("DiS-S/2", 32, 3)?;
    let model = DisModel::new(config)?;
    let cost = Cost::of(&config, 1)?;
    println!(
        "{} tokens, {:.1} M parameters, {:.2} G multiply-adds an image",
        config.tokens(),
        model.table().parameters() as f64 / 1e6,
        cost.macs.total() as f64 / 1e9,
    );

    let cpu = Cpu::new();
    let mut params = cpu.from_f32(&model.table().initial(0));
    cpu.prepare_weights(&mut params, model.table().products())?;
    let image = cpu.from_f32(&vec![0.5; 3 * 32 * 32]);
    let input = ModelInput {
        image: &image,
        t: &[500.0],
        condition: Condition::None,
        drop_path: None,
    };
    let out = cpu.to_f32(&model.forward(Ctx::new(&cpu, &params), &input)?);
    // Noise and what the variance is made of, three channels each.
    assert_eq!(out.len(), 6 * 32 * 32);
    println!("output of {} values, the first is {}", out.len(), out[0]);
    Ok(())
}
