//! `ballast`: runs containers as microVMs.

fn main() -> std::process::ExitCode {
    vmm::cli::main()
}
