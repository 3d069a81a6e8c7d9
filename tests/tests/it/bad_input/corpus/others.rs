//! Files that are no pictures, or pictures of formats that are not read.

use diptych_tests::files::{fixture, zlib};

use super::{Case, refused};

pub(super) fn cases() -> Vec<Case> {
    let zeros = |start: &[u8]| [start, &[0; 200]].concat();
    let html = b"<!DOCTYPE html><html><body><h1>504 Gateway Time-out</h1></body></html>";
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>";
    let files: [(&str, Vec<u8>); 26] = [
        ("a TIFF", zeros(b"II*\0\x08\0\0\0")),
        ("a TIFF of the other order", zeros(b"MM\0*\0\0\0\x08")),
        ("a BMP", zeros(b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0")),
        ("an icon", zeros(b"\0\0\x01\0\x01\0\x10\x10")),
        ("a HEIC", zeros(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")),
        ("an AVIF", zeros(b"\0\0\0\x1Cftypavif\0\0\0\0avifmif1")),
        ("a JPEG 2000", zeros(b"\0\0\0\x0CjP  \r\n\x87\n")),
        ("a JPEG XL", zeros(b"\xFF\x0A\xFA\x1F\x01")),
        ("a PSD", zeros(b"8BPS\0\x01")),
        ("an OpenEXR", zeros(b"v/1\x01\x02\0\0\0")),
        ("a Radiance picture", zeros(b"#?RADIANCE\n")),
        ("a PNM", b"P6 1 1 255 abc".to_vec()),
        ("a QOI", zeros(b"qoif\0\0\0\x01\0\0\0\x01\x03\0")),
        ("a DDS", zeros(b"DDS \x7C\0\0\0")),
        ("a film", zeros(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2")),
        ("a PDF", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n".to_vec()),
        ("an SVG", svg.to_vec()),
        ("an HTML page", html.to_vec()),
        ("a ZIP", zeros(b"PK\x03\x04\x14\0\0\0\x08\0")),
        ("a program", zeros(b"\x7FELF\x02\x01\x01")),
        ("a packed PNG", zlib(&fixture("plain.png"))),
        ("a data URI", b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB".to_vec()),
        ("a space before a PNG", [b" ".to_vec(), fixture("plain.png")].concat()),
        ("a single zero", vec![0]),
        ("10,000 zeros", vec![0; 10_000]),
        ("9 MiB of ones", vec![0xFF; 9 << 20]),
    ];
    let case = |(what, file): (&str, Vec<u8>)| {
        Case::picture(what, file, refused("IMAGE_FORMAT_UNSUPPORTED", "image"))
    };
    let mut cases: Vec<Case> = files.into_iter().map(case).collect();
    // Three bytes of ones begin no JPEG: the second must be 0xD8.
    cases.push(Case::picture("nothing", Vec::new(), refused("IMAGE_EMPTY", "image")));
    cases
}
