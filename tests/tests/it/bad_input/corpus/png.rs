//! PNG (ISO/IEC 15948), chunk by chunk.

use diptych_tests::files::*;

use super::{Case, Told, refused};

const CORRUPT: &str = "IMAGE_CORRUPT";

fn corrupt() -> Told {
    refused(CORRUPT, "image")
}

pub(super) fn cases() -> Vec<Case> {
    [kinds(), heads(), rows(), palettes(), order(), checksums(), extras(), animations(), cuts()]
        .concat()
}

/// Sound files of every colour type and depth.
fn kinds() -> Vec<Case> {
    let palette = || chunk(b"PLTE", &[7; 6]);
    let kinds = [
        (0, [1, 2, 4, 8, 16].as_slice()),
        (2, &[8, 16]),
        (3, &[1, 2, 4, 8]),
        (4, &[8, 16]),
        (6, &[8, 16]),
    ];
    let each = kinds.into_iter().flat_map(|(colour, depths)| {
        depths.iter().map(move |&depth| {
            let before = if colour == 3 { vec![palette()] } else { Vec::new() };
            let file = Head { depth, colour, ..Head::default() }.file(&before);
            Case::picture(format!("png: colour {colour} of {depth} bits"), file, Told::Answered)
        })
    });
    let mut cases: Vec<Case> = each.collect();
    // 1 x 1 has one pass of the seven.
    let laced = Head { width: 1, height: 1, methods: [0, 0, 1], ..Head::default() };
    cases.push(Case::picture("png: interlaced", laced.file(&[]), Told::Answered));
    let pixel = Head { width: 1, height: 1, ..Head::default() };
    cases.push(Case::picture("png: 1 x 1", pixel.file(&[]), Told::Answered));
    cases
}

/// Heads that no picture has.
fn heads() -> Vec<Case> {
    let head = Head::default();
    let rows = || chunk(b"IDAT", &zlib(&head.rows()));
    let heads = [
        ("0 x 0", Head { width: 0, height: 0, ..head }),
        ("0 x 3", Head { width: 0, ..head }),
        ("4 x 0", Head { height: 0, ..head }),
        ("3 bits", Head { depth: 3, ..head }),
        ("0 bits", Head { depth: 0, ..head }),
        ("RGB of 4 bits", Head { depth: 4, ..head }),
        ("colour type 1", Head { colour: 1, ..head }),
        ("colour type 5", Head { colour: 5, ..head }),
        ("colour type 255", Head { colour: 255, ..head }),
        ("palette of 16 bits", Head { colour: 3, depth: 16, ..head }),
        ("compression method 1", Head { methods: [1, 0, 0], ..head }),
        ("filter method 1", Head { methods: [0, 1, 0], ..head }),
        ("interlace method 2", Head { methods: [0, 0, 2], ..head }),
    ];
    let case = |(what, head): (&str, Head)| {
        Case::picture(format!("png head: {what}"), png(&[head.chunk(), rows()]), corrupt())
    };
    let mut cases: Vec<Case> = heads.into_iter().map(case).collect();
    for length in [0, 12, 14, 4000] {
        let file = png(&[chunk(b"IHDR", &vec![1; length]), rows()]);
        cases.push(Case::picture(format!("png head: {length} bytes"), file, corrupt()));
    }
    cases
}

/// Rows that are no rows of the picture.
fn rows() -> Vec<Case> {
    let head = Head::default();
    let of = |data: &[u8]| png(&[head.chunk(), chunk(b"IDAT", data)]);
    let full = head.rows();
    let mut odd_filter = full.clone();
    odd_filter[0] = 9;
    let whole = zlib(&full);
    let mut broken = whole.clone();
    broken[0] ^= 0xFF;
    let empties = vec![chunk(b"IDAT", b""); 10_000].concat();
    vec![
        Case::picture("png rows: none at all", of(b""), corrupt()),
        Case::picture("png rows: none when unpacked", of(&zlib(b"")), corrupt()),
        Case::picture("png rows: half of them", of(&zlib(&full[..full.len() / 2])), corrupt()),
        Case::picture("png rows: one byte too few", of(&zlib(&full[1..])), corrupt()),
        Case::picture("png rows: ten times too many", of(&zlib(&full.repeat(10))), Told::Answered),
        Case::picture("png rows: filter type 9", of(&zlib(&odd_filter)), corrupt()),
        Case::picture("png rows: not packed", of(&full), corrupt()),
        Case::picture("png rows: another packing", of(&broken), corrupt()),
        Case::picture("png rows: packed and cut", of(&whole[..whole.len() / 2]), corrupt()),
        Case::picture(
            "png rows: 10,000 empty chunks first",
            png(&[head.chunk(), empties, chunk(b"IDAT", &whole)]),
            Told::Answered,
        ),
        Case::picture(
            "png rows: a byte in each chunk",
            png(&[head.chunk(), whole.iter().flat_map(|byte| chunk(b"IDAT", &[*byte])).collect()]),
            Told::Answered,
        ),
        Case::picture(
            "png rows: more than a gigabyte when unpacked",
            of(&zlib(&vec![0; 64 << 20])),
            Told::Answered,
        ),
    ]
}

fn palettes() -> Vec<Case> {
    let head = Head { colour: 3, ..Head::default() };
    let with = |before: &[Vec<u8>]| head.file(before);
    let two = || chunk(b"PLTE", &[7; 6]);
    let mut beyond = head.rows();
    beyond[1] = 200;
    let beyond = png(&[head.chunk(), two(), chunk(b"IDAT", &zlib(&beyond))]);
    vec![
        Case::picture("png palette: none", with(&[]), corrupt()),
        Case::picture(
            "png palette: empty",
            with(&[chunk(b"PLTE", b"")]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture(
            "png palette: a third of a colour",
            with(&[chunk(b"PLTE", &[7])]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture(
            "png palette: 257 colours",
            with(&[chunk(b"PLTE", &[7; 771])]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture("png palette: twice", with(&[two(), two()]), Told::Perhaps(&[CORRUPT])),
        Case::picture("png palette: a pixel beyond it", beyond, Told::Perhaps(&[CORRUPT])),
        Case::picture(
            "png palette: more transparency than colours",
            with(&[two(), chunk(b"tRNS", &[9; 300])]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture(
            "png palette: transparency before it",
            with(&[chunk(b"tRNS", &[9; 2]), two()]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture(
            "png palette: transparency of the wrong size",
            Head::default().file(&[chunk(b"tRNS", &[1])]),
            Told::Perhaps(&[CORRUPT]),
        ),
    ]
}

/// Chunks that are missing, repeated or in the wrong place.
fn order() -> Vec<Case> {
    let head = Head::default();
    let rows = || chunk(b"IDAT", &zlib(&head.rows()));
    let bytes = |parts: &[&[u8]]| parts.concat();
    let long =
        |length: u32| bytes(&[PNG_MAGIC, &head.chunk(), &length.to_be_bytes(), b"IDAT", &[0; 64]]);
    vec![
        Case::picture("png: the magic alone", PNG_MAGIC.to_vec(), corrupt()),
        Case::picture("png: the head alone", bytes(&[PNG_MAGIC, &head.chunk()]), corrupt()),
        Case::picture("png: no head", png(&[rows()]), corrupt()),
        Case::picture("png: no rows", png(&[head.chunk()]), corrupt()),
        Case::picture("png: an end alone", png(&[]), corrupt()),
        Case::picture("png: two heads", png(&[head.chunk(), head.chunk(), rows()]), corrupt()),
        Case::picture("png: rows before the head", png(&[rows(), head.chunk()]), corrupt()),
        Case::picture(
            "png: no end",
            bytes(&[PNG_MAGIC, &head.chunk(), &rows()]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture("png: a chunk of 4 GiB", long(u32::MAX), corrupt()),
        Case::picture("png: a chunk of 2 GiB", long(i32::MAX as u32), corrupt()),
        Case::picture("png: a chunk longer than the file", long(65), corrupt()),
        Case::picture(
            "png: an unknown chunk that matters",
            head.file(&[chunk(b"ABCD", b"x")]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture(
            "png: a chunk whose name is no name",
            head.file(&[chunk(b"\0\0\0\0", b"x")]),
            Told::Perhaps(&[CORRUPT]),
        ),
        Case::picture(
            "png: 50,000 unknown chunks",
            head.file(&[chunk(b"zzZz", b"").repeat(50_000)]),
            Told::Answered,
        ),
        Case::picture(
            "png: as a text file",
            png(&[head.chunk(), rows()]).into_iter().filter(|byte| *byte != b'\r').collect(),
            refused("IMAGE_FORMAT_UNSUPPORTED", "image"),
        ),
    ]
}

fn checksums() -> Vec<Case> {
    let head = Head::default();
    let wrong = |mut part: Vec<u8>| {
        *part.last_mut().unwrap() ^= 1;
        part
    };
    let rows = || chunk(b"IDAT", &zlib(&head.rows()));
    let end = [PNG_MAGIC.to_vec(), head.chunk(), rows(), wrong(chunk(b"IEND", b""))].concat();
    let mut cases = vec![
        Case::picture("png checksum: of the head", png(&[wrong(head.chunk()), rows()]), corrupt()),
        Case::picture("png checksum: of the rows", png(&[head.chunk(), wrong(rows())]), corrupt()),
        Case::picture("png checksum: of the end", end, Told::Perhaps(&[CORRUPT])),
        Case::picture(
            "png checksum: of a text",
            head.file(&[wrong(chunk(b"tEXt", b"a\0b"))]),
            Told::Perhaps(&[CORRUPT]),
        ),
    ];
    // A byte of the fixture's head or rows at a time: the checksums tell.
    let file = fixture("plain.png");
    for place in [12, 16, 19, 20, 24, 25, 29, 37, 41, 60, 100, 200, 300, 400] {
        let mut flipped = file.clone();
        flipped[place] ^= 0x10;
        cases.push(Case::picture(format!("png: byte {place} flipped"), flipped, corrupt()));
    }
    for place in 0..8 {
        let mut flipped = file.clone();
        flipped[place] ^= 0x20;
        let told = refused("IMAGE_FORMAT_UNSUPPORTED", "image");
        cases.push(Case::picture(format!("png: byte {place} of the magic flipped"), flipped, told));
    }
    cases
}

/// Texts, profiles and the like, which are never needed.
fn extras() -> Vec<Case> {
    let head = Head::default();
    let with = |what: &str, part: Vec<u8>, told| {
        Case::picture(format!("png extra: {what}"), head.file(&[part]), told)
    };
    let packed = |start: &[u8]| [start, &zlib(&vec![b'a'; 48 << 20])].concat();
    const PERHAPS: Told = Told::Perhaps(&[CORRUPT, "IMAGE_TOO_LARGE"]);
    vec![
        with(
            "a text of 8 MiB",
            chunk(b"tEXt", &[b"a\0".as_slice(), &vec![b'b'; 8 << 20]].concat()),
            Told::Answered,
        ),
        with("a text without a key", chunk(b"tEXt", b""), Told::Answered),
        with("a text that unpacks to 48 MiB", chunk(b"zTXt", &packed(b"a\0\0")), Told::Answered),
        with(
            "another that unpacks to 48 MiB",
            chunk(b"iTXt", &packed(b"a\0\x01\0\0\0")),
            Told::Answered,
        ),
        with("a text that does not unpack", chunk(b"zTXt", b"a\0\0not packed"), Told::Answered),
        with("a text in no UTF-8", chunk(b"iTXt", b"a\0\0\0\0\0\xFF\xFE"), Told::Answered),
        with("a profile that unpacks to 48 MiB", chunk(b"iCCP", &packed(b"a\0\0")), PERHAPS),
        with("a profile that does not unpack", chunk(b"iCCP", b"a\0\0not packed"), PERHAPS),
        with("a gamma of 0", chunk(b"gAMA", &[0; 4]), Told::Answered),
        with("chromaticities of 0", chunk(b"cHRM", &[0; 32]), Told::Answered),
        with("a pixel size of 0", chunk(b"pHYs", &[0; 9]), Told::Answered),
        with("EXIF of zeros", chunk(b"eXIf", &[0; 100]), Told::Answered),
        with("EXIF turned 9", chunk(b"eXIf", &exif(8, 1, 9)), Told::Answered),
        with("EXIF turned 6", chunk(b"eXIf", &exif(8, 1, 6)), Told::Answered),
        with(
            "EXIF that begins beyond its end",
            chunk(b"eXIf", &exif(u32::MAX, 1, 6)),
            Told::Answered,
        ),
        with(
            "EXIF that says 4,294,967,295 values",
            chunk(b"eXIf", &exif(8, u32::MAX, 6)),
            Told::Answered,
        ),
    ]
}

fn animations() -> Vec<Case> {
    let head = Head::default();
    let control = |frames: u32| chunk(b"acTL", &[frames.to_be_bytes(), [0; 4]].concat());
    let frame = |sequence: u32, width: u32| {
        let sizes = [sequence, width, 3, 0, 0].map(u32::to_be_bytes).concat();
        chunk(b"fcTL", &[sizes.as_slice(), &[0, 1, 0, 10, 0, 0]].concat())
    };
    const PERHAPS: Told = Told::Perhaps(&[CORRUPT]);
    vec![
        Case::picture("apng: sound", fixture("animated.png"), Told::Answered),
        Case::picture("apng: no frames", head.file(&[control(0)]), PERHAPS),
        Case::picture(
            "apng: 2,147,483,647 frames",
            head.file(&[control(i32::MAX as u32)]),
            PERHAPS,
        ),
        Case::picture(
            "apng: a frame larger than the picture",
            head.file(&[control(1), frame(0, 4000)]),
            PERHAPS,
        ),
        Case::picture(
            "apng: a frame of no columns",
            head.file(&[control(1), frame(0, 0)]),
            PERHAPS,
        ),
        Case::picture("apng: frames out of order", head.file(&[control(2), frame(7, 4)]), PERHAPS),
        Case::picture(
            "apng: a frame before it is announced",
            head.file(&[frame(0, 4), control(1)]),
            PERHAPS,
        ),
        Case::picture(
            "apng: rows of a frame before the picture's",
            head.file(&[control(2), chunk(b"fdAT", &[0; 20])]),
            PERHAPS,
        ),
    ]
}

/// Ends too early, or goes on behind the end.
fn cuts() -> Vec<Case> {
    let file = fixture("plain.png");
    let mut cases: Vec<Case> = (1..8)
        .map(|eighth| {
            let cut = file[..file.len() * eighth / 8].to_vec();
            Case::picture(format!("png: {eighth} eighths of it"), cut, corrupt())
        })
        .collect();
    for length in [1, 4, 7] {
        let told = refused("IMAGE_FORMAT_UNSUPPORTED", "image");
        cases.push(Case::picture(
            format!("png: {length} bytes of it"),
            file[..length].to_vec(),
            told,
        ));
    }
    let with = |rest: &[u8]| [&file, rest].concat();
    cases.extend([
        Case::picture("png: a byte behind the end", with(&[0]), Told::Answered),
        Case::picture("png: a megabyte behind the end", with(&vec![0xAA; 1 << 20]), Told::Answered),
        Case::picture("png: another picture behind the end", with(&file), Told::Answered),
    ]);
    cases
}
