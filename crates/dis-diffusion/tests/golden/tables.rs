//! Schedule tables and timestep maps against those of the published code.

use dis_diffusion::Tables;
use dis_golden::Golden;

fn check(name: &str) {
    let golden = Golden::open(name);
    let tolerance = golden.manifest["tolerance"]["rtol"].as_f64().unwrap();
    for case in golden.manifest["respacings"].as_array().unwrap() {
        let label = case["label"].as_str().unwrap();
        let diffusion = crate::diffusion(case);
        let tables = diffusion.tables();
        assert_eq!(
            tables.timestep_map,
            golden.indices(&format!("{label}.timestep_map")).1,
            "{label}"
        );
        for table in Tables::NAMES {
            let got = tables.by_name(table).unwrap();
            let expected = golden.f64(&format!("{label}.{table}")).1;
            assert_eq!(got.len(), expected.len(), "{label}.{table}");
            for (t, (a, b)) in got.iter().zip(&expected).enumerate() {
                assert!(
                    (a - b).abs() <= tolerance * b.abs(),
                    "{label}.{table}[{t}]: {a}, not {b}"
                );
            }
        }
    }
}

#[test]
fn published_linear_tables() {
    check("diffusion_tables");
}

#[test]
fn published_cosine_tables_sections_and_other_lengths() {
    check("diffusion_tables_more");
}
