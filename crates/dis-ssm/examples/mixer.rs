//! The bidirectional mixer: one step down a gradient; then Mamba's own mixer, which walks one way, token by
//! token.

use dis_ssm::{
    Backend, CausalMixer, Cpu, Ctx, Layout, Mixer, MixerConfig, MixerInit, ParamTable, Result,
    TokenBuf,
};

fn main() -> Result<()> {
    let cpu = Cpu::new();
    let config = MixerConfig::new(24);
    let layout = Layout::dense(1, 12, 24); // samples, tokens, channels
    let wave: Vec<f32> = (0..layout.elements())
        .map(|i| (0.37 * i as f32).sin())
        .collect();
    let input = TokenBuf::from_f32(&cpu, layout, &wave);

    let mut table = ParamTable::new();
    let mixer = Mixer::new(&mut table, "", config, MixerInit::default(), 1.0);
    println!("{} parameters, among them:", table.parameters());
    for spec in table.specs().iter().take(5) {
        println!("  {:<15} {:?}", spec.name, spec.shape);
    }
    let mut params = cpu.from_f32(&table.initial(0));

    // The loss is sum(y^2) / 2, so its derivative by y is y.
    let mut loss = Vec::new();
    for _ in 0..2 {
        let mut y = TokenBuf::new(&cpu, layout);
        let saved =
            mixer.forward_saved(Ctx::new(&cpu, &params), input.view(), Some(y.view_mut()))?;
        loss.push(cpu.to_f32(&y.buf).iter().map(|y| y * y).sum::<f32>() / 2.0);
        let (mut dinput, mut grads) = (TokenBuf::new(&cpu, layout), cpu.zeros(table.len()));
        let (x, dx) = (input.view(), dinput.view_mut());
        mixer.backward(Ctx::new(&cpu, &params), saved, x, y.view(), dx, &mut grads)?;
        let stepped = params.iter().zip(grads.iter()).map(|(p, g)| p - 0.01 * g);
        params = cpu.from_f32(&stepped.collect::<Vec<f32>>());
    }
    println!("loss {:.4} before a step, {:.4} after", loss[0], loss[1]);
    assert!(loss[1] < loss[0]);

    let mut table = ParamTable::new();
    let mixer = CausalMixer::new(&mut table, "", config, 1.0);
    let params = cpu.from_f32(&table.initial(0));
    let mut at_once = TokenBuf::new(&cpu, layout);
    let mut state = mixer.start(&cpu, 1);
    mixer.advance(
        Ctx::new(&cpu, &params),
        &mut state,
        input.view(),
        at_once.view_mut(),
    )?;
    let mut one_by_one = TokenBuf::new(&cpu, layout);
    let mut state = mixer.start(&cpu, 1);
    for t in 0..layout.tokens {
        let (x, y) = (input.tokens(t, 1), one_by_one.tokens_mut(t, 1));
        mixer.advance(Ctx::new(&cpu, &params), &mut state, x, y)?;
    }
    assert_eq!(cpu.to_f32(&at_once.buf), cpu.to_f32(&one_by_one.buf));
    println!("twelve tokens at once and one by one: equal bits");
    Ok(())
}
