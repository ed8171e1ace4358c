//! Every recorded network verifies: no differences anywhere, on the reference and on every instruction set.

use qexact_kernels::Isa;
use qexact_model::Export;
use qexact_verify::analyze::analyze;
use qexact_verify::network::{Options, verify};
use qexact_verify::render;
use std::path::Path;

#[test]
fn recorded_networks_verify() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/networks");
    let options = Options { isas: Isa::available().collect(), strict: false };
    let mut networks = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let export = Export::read(&path).unwrap();
        let report = verify(&name, &export, &options, |_, _| {}).unwrap();
        assert!(report.is_clean(), "{}", render::network(&report));
        for node in &report.nodes {
            // Everything recorded was compared.
            assert!(node.compared > 0 && node.unjudged_samples == 0, "{name}: {}", node.name);
        }
        // Saturation is for fbgemm's depthwise kernels to explain, on codes of 8 bits.
        let saturated = report.nodes.iter().any(|node| node.saturated + node.saturated_samples > 0);
        assert!(!saturated || name.starts_with("odd"), "{name} is said to saturate");
        assert!(analyze(&name, &export).to_string().contains(&name));
        networks += 1;
    }
    assert!(networks > 10, "{networks} networks in {}", folder.display());
}
