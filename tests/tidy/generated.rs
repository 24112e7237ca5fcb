//! Committed text that the code makes: `make generated` writes it anew.

use lowmem_tests::generated;

#[test]
fn results_page() {
    generated("docs/results.md", &reports::results_page());
}
