//! What is fuzzed: each function feeds bytes from outside to one pure entry point and checks what must hold.
pub fn smaps(data: &[u8]) {
    let _ = balloon::resident::parse_smaps(&String::from_utf8_lossy(data));
}
pub fn size(data: &[u8]) {
    if let Ok(s) = std::str::from_utf8(data).unwrap_or("").parse::<balloon::size::Size>() {
        assert!(s.bytes() < 1 << 50);
    }
}
