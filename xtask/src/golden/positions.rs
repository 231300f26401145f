//! Tables of positions for grids of another size.

use anyhow::{Context, Result};
use dis_model::positions::{Bicubic, PositionResize};
use serde_json::Value;

use super::case::{Case, Rule, flag, string, whole};

fn grid(entry: &Value, key: &str) -> Result<[usize; 2]> {
    let sides = entry.get(key).and_then(Value::as_array);
    let sides = sides.with_context(|| format!("has no list {key:?}"))?;
    let side = |side: &Value| side.as_u64().map(|x| x as usize);
    match sides.as_slice() {
        [height, width] => side(height).zip(side(width)).map(|(h, w)| [h, w]),
        _ => None,
    }
    .with_context(|| format!("{key} is not [height, width]"))
}

/// "pos_embed_resize": in float64, and rounded to float32 as weights are.
pub fn pos_embed_resize(case: &Case) -> Result<()> {
    let double = Rule::OfLargest(case.tolerance(&["rtol_float64"])?);
    for entry in case.list("cases")? {
        let label = string(entry, "label")?;
        let (from, to) = (grid(entry, "grid_in")?, grid(entry, "grid_out")?);
        let dim = whole(entry, "dim")?;
        let kind = match flag(entry, "antialias")? {
            true => Bicubic::Antialiased,
            false => Bicubic::Plain,
        };
        let resize = PositionResize::new(from, to, whole(entry, "extra_tokens")?, kind)?;
        let input =
            |name: &str| Ok::<_, anyhow::Error>(case.tensor(&format!("{label}.{name}"))?.f64());
        let outputs = [
            ("out", resize.forward(&input("table")?, dim)?),
            ("grad_table", resize.backward(&input("upstream")?, dim)?),
        ];
        for (name, ours) in outputs {
            let name = format!("{label}.{name}");
            case.expect(&name, &ours, double)?;
            let rounded: Vec<f64> = ours.iter().map(|&x| f64::from(x as f32)).collect();
            case.expect(&name, &rounded, Rule::OfLargest(case.listed_rtol(&name)?))?;
        }
    }
    Ok(())
}
