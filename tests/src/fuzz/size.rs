//! Sizes as people write them. What is read is written, and read again, as at most the same size.

use balloon::size::Size;

pub fn run(input: &[u8]) {
    let Ok(size) = String::from_utf8_lossy(input).parse::<Size>() else { return };
    let written = size.to_string().replace(' ', "");
    if let Ok(again) = written.parse::<Size>() {
        assert!(again <= size, "{written}");
    } else {
        assert!(written.contains('.'), "{written}");
    }
}
