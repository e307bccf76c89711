//! What pages load besides themselves. Each file's address holds its hash, so that browsers keep it for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// One file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 4] = [
    Asset { name: "knot.css", kind: "text/css; charset=utf-8", text: include_str!("../../static/knot.css") },
    Asset { name: "knot.js", kind: "text/javascript; charset=utf-8", text: include_str!("../../static/knot.js") },
    Asset { name: "htmx.js", kind: "text/javascript; charset=utf-8", text: include_str!("../../static/htmx.js") },
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("../../static/icon.svg") },
];

/// Where pages find the files.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) htmx: String,
    pub(super) icon: String,
}

/// The addresses, with the hashes of what is there.
pub(super) static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| {
    let [style, script, htmx, icon] = &ASSETS;
    Addresses { style: address(style), script: address(script), htmx: address(htmx), icon: address(icon) }
});

fn address(asset: &Asset) -> String {
    format!("/static/{}?v={}", asset.name, version(asset))
}

fn version(asset: &Asset) -> String {
    blake3::hash(asset.text.as_bytes()).to_hex().chars().take(16).collect()
}

pub(super) async fn serve(Path(name): Path<String>, uri: Uri) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // Another version's page may ask while servers are replaced one after the other.
    let is_same = uri.query().and_then(|query| query.strip_prefix("v=")) == Some(version(asset).as_str());
    let kept = if is_same { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, kept)], asset.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that a first visit may load besides the page, in bytes.
    const WEIGHT_MAX: usize = 80 << 10;

    #[test]
    fn a_first_visit_loads_little() {
        let weight: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();
        assert!(weight < WEIGHT_MAX, "{weight} bytes");
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for asset in ASSETS.iter().filter(|asset| asset.name != "htmx.js" && asset.name != "icon.svg") {
            assert!(!asset.text.contains("://"), "{}", asset.name);
        }
    }
}
