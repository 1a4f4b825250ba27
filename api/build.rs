//! Compiles the crate anew when the dashboard was built: the names of its files change with their content.

fn main() {
    println!("cargo::rerun-if-changed=dashboard/dist");
}
