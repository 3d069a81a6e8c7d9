use super::*;

fn refused(bytes: &[u8]) -> String {
    read(bytes).map(|_| ()).unwrap_err()
}

#[test]
fn a_pickle_that_would_call_something_is_refused_by_its_name() {
    let protocols: [&[u8]; 3] = [
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"\x80\x02}cbuiltins\neval\nX\x01\x00\x00\x001\x85Rs.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x8c\x02ls\x85R.",
    ];
    for (bytes, name) in protocols.into_iter().zip(["os.system", "builtins.eval", "posix.system"]) {
        let told = refused(bytes);
        assert!(told.contains(name) && told.contains("nothing was run"), "{told}");
    }
    // Names that begin as PyTorch's do.
    for name in
        ["torch\nload", "torch\nFloatStorage.__reduce__", "torch._utils\n_import_dotted_name"]
    {
        let told = refused(format!("\x02c{name}\n.").replacen('\x02', "", 1).as_bytes());
        assert!(told.contains("nothing was run"), "{told}");
    }
}

#[test]
fn instructions_that_make_objects_or_import_are_unknown() {
    // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, BUILD on a name, REDUCE of a made name, PERSID by text.
    let rows: [&[u8]; 8] = [
        b"(ios\nsystem\n.",
        b"(o.",
        b"ccollections\nOrderedDict\n)\x81.",
        b"\x92.",
        b"\x82\x01.",
        b"ccollections\nOrderedDict\n}b.",
        b"))R.",
        b"Pid\n.",
    ];
    for bytes in rows {
        refused(bytes);
    }
}

#[test]
fn nothing_that_is_cut_off_or_turned_round_gets_through() {
    for bytes in [
        &b""[..],
        b".",
        b"\x80",
        b"(",
        b"t.",
        b"a.",
        b"]a.",
        b"h\x00.",
        b"\x85.",
        b"(s.",
        b"}(K\x01u.",
        b"R.",
        b"Q.",
        b"}}s.",
    ] {
        refused(bytes);
    }
    // Lengths beyond the end cost nothing.
    refused(b"X\xff\xff\xff\xffabc.");
    refused(b"\x8a\xff.");
}

#[test]
fn a_deep_nesting_is_read_and_dropped() {
    let mut bytes = b"]".repeat(100_000);
    bytes.extend(b"a".repeat(99_999));
    bytes.push(b'.');
    read(&bytes).unwrap();
}

proptest::proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        drop(read(&bytes));
    }
}
