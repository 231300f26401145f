//! Texts that are refused, and lints.

#![allow(clippy::unwrap_used)]

use dis_ptx_sim::{LintKind, Module};

const HEAD: &str = "// A test.\n.version 7.0\n.target sm_80\n.address_size 64\n";

/// A text whose body has a line to try at line 10.
fn with(line: &str) -> String {
    format!(
        "{HEAD}.visible .entry k(.param .u64 x)\n.maxntid 32\n{{\n    .reg .pred %p, %q; .reg .b16 %h; \
         .reg .f32 %f<4>; .reg .f64 %d<4>; .reg .b32 %r<4>; .reg .u32 %u; .reg .b64 %l<4>;\n\
         .shared .align 4 .f32 box[8];\n{line}\nLAST:\n    ret;\n}}\n"
    )
}

fn refused(line: &str) -> String {
    match Module::parse("kernels/a.ptx", &with(line)) {
        Ok(_) => panic!("`{line}` was accepted"),
        Err(error) => {
            assert_eq!(
                (error.file.as_str(), error.line),
                ("kernels/a.ptx", 10),
                "{error}"
            );
            assert!(error.to_string().starts_with("kernels/a.ptx:10: "));
            error.message
        }
    }
}

#[test]
fn unknown_instructions_and_modifiers_are_errors() {
    for line in [
        "frobnicate.u32 %r0, %r1;",
        "add.sat.s32 %r0, %r1, %r2;",
        "add.rz.f32 %f0, %f1, %f2;",
        "add.rn.ftz.f32 %f0, %f1, %f2;",
        "mul.f16 %h, %h, %h;",
        "mul.u32 %r0, %r1, %r2;",
        "fma.f32 %f0, %f1, %f2, %f3;",
        "fma.rn.sat.f32 %f0, %f1, %f2, %f3;",
        "mad.f32 %f0, %f1, %f2, %f3;",
        "div.f32 %f0, %f1, %f2;",
        "rcp.f32 %f0, %f1;",
        "ex2.f32 %f0, %f1;",
        "ex2.approx.f64 %d0, %d1;",
        "tanh.approx.ftz.f32 %f0, %f1;",
        "sqrt.rz.f32 %f0, %f1;",
        "setp.lt.b32 %p, %r0, %r1;",
        "setp.lo.s32 %p, %r0, %r1;",
        "setp.ltu.u32 %p, %r0, %r1;",
        "cvt.u32.f32 %r0, %f0;",
        "cvt.rni.f32.s32 %f0, %r0;",
        "cvt.f32.s32 %f0, %r0;",
        "cvt.f32.f64 %f0, %d0;",
        "cvt.rn.f64.f32 %d0, %f0;",
        "shfl.down.b32 %r0, %r1, 1, 31;",
        "shfl.sync.left.b32 %r0, %r1, 1, 31, -1;",
        "bar.sync %r0;",
        "bar.sync 0, 64;",
        "bar.arrive 0, 32;",
        "vote.all.pred %p, %q;",
        "atom.global.add.f32 %f0, [%l0], %f1;",
        "ld.volatile.global.f32 %f0, [%l0];",
        "ld.global.v3.f32 {%f0, %f1, %f2}, [%l0];",
        "ld.global.v8.f32 {%f0, %f1, %f2, %f3}, [%l0];",
        "ld.global.v4.f64 {%d0, %d1, %d2, %d3}, [%l0];",
        "st.global.nc.f32 [%l0], %f0;",
        "shl.s32 %r0, %r1, 1;",
        "bra.sometimes LAST;",
        ".local .f32 x;",
    ] {
        refused(line);
    }
}

#[test]
fn operands_must_fit_the_instruction() {
    for (line, part) in [
        ("add.u32 %r0, %r1;", "2 operands where 3"),
        ("add.u32 %r0, %r1, %r2, %r3;", "4 operands"),
        ("add.u32 %f0, %f1, %f2;", "F32, not U32"),
        ("add.rn.f32 %u, %f1, %f2;", "U32, not F32"),
        ("add.u32 %r0, %r1, %l0;", "B64, not U32"),
        ("add.u32 %r0, %r1, %unknown;", "not a register"),
        ("add.u32 5, %r1, %r2;", "no register"),
        ("add.u32 %r0, %r1, 0f3f800000;", "constant"),
        ("add.u32 %r0, %r1, 4294967296;", "beyond 32 bits"),
        ("add.s32 %r0, %r1, -2147483649;", "beyond 32 bits"),
        ("add.rn.f32 %f0, %f1, 1;", "constant"),
        ("mov.pred %p, %r0;", "not Pred"),
        ("selp.u32 %r0, 1, 0, %r1;", "not Pred"),
        ("@%r0 bra LAST;", "not Pred"),
        ("shl.b64 %l0, %l1, %l2;", "not U32"),
        ("mul.wide.u32 %r0, %r1, %r2;", "B32, not U64"),
        ("ld.global.f32 %f0, [%r0];", "not B64"),
        ("ld.global.f64 %r0, [%l0];", "not F64"),
        ("ld.global.u32 %l0, [%l1];", "64-bit register"),
        ("ld.global.f32 %f0, %l0;", "brackets"),
        (
            "ld.global.v2.f32 {%f0, %f1, %f2}, [%l0];",
            "3 registers for 2",
        ),
        ("ld.global.v2.f32 %f0, [%l0];", "braces"),
        ("ld.param.u64 %l0, [y];", "no parameter"),
        ("ld.param.u64 %l0, [x+8];", "8 bytes"),
        ("ld.param.u32 %r0, [x+2];", "misaligned"),
        ("bra NOWHERE;", "no label"),
        ("bra %r0;", "label"),
        ("mov.f32 %f0, box;", "address"),
        ("mov.b64 {%r0, %r1, %r2}, %l0;", "3 operands where 2"),
        ("add.u32 %r0, %r1, 08;", "not a number"),
        ("add.u32 %r0 %r1, %r2;", "expected"),
        ("{ .reg .b32 %inner; } mov.u32 %inner, 1;", "not a register"),
        (".reg .b32 %r0;", "second register"),
        ("LAST: mov.u32 %r0, 1;", "label"),
    ] {
        // The second of two labels is reported at its own line.
        if line.starts_with("LAST") {
            assert!(
                Module::parse("a", &with(line))
                    .unwrap_err()
                    .message
                    .contains(part)
            );
            continue;
        }
        let message = refused(line);
        assert!(message.contains(part), "`{line}`: {message}");
    }
}

#[test]
fn whole_texts_that_are_refused() {
    for (text, part) in [
        ("", "starts with"),
        (".version 7.0\n.target sm_80\n.address_size 32", "64 bits"),
        (
            ".version 7.0\n.target sm_80\n.func f() { ret; }",
            "not supported",
        ),
        (
            ".version 7.0\n.target sm_80\n.global .f32 x;",
            "not supported",
        ),
        (".version 7.0\n.target sm_80\n/* open", "without an end"),
        (
            ".version 7.0\n.target sm_80\n.entry k() { mov.u32 %r0, 1; ret; }",
            "not a register",
        ),
        (
            ".version 7.0\n.target sm_80\n.entry k() { .reg .b32 %r; mov.u32 %r, 1; }",
            "does not end",
        ),
        (
            ".version 7.0\n.target sm_80\n.entry k() { ret; } .entry k() { ret; }",
            "second entry",
        ),
        (
            ".version 7.0\n.target sm_80\n.entry k() { ret;",
            "end of the text",
        ),
        (".version 7.0\n.target sm_80\n.shared .b8 open[];", "extern"),
        (
            ".version 7.0\n.target sm_80\n.entry k(.param .b8 s[9999]) { ret; }",
            "size",
        ),
    ] {
        let error = Module::parse("a.ptx", text).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_a_text_declares_can_be_asked() {
    let text = format!(
        "{HEAD}.extern .shared .align 16 .b8 dyn[];\n.visible .entry a(.param .u64 x, .param .align 8 .b8 \
         s[24], .param .f32 y)\n.maxntid 64, 2, 1\n.minnctapersm 3\n.maxnreg 40\n{{ .shared .b8 one[3]; \
         .shared .align 16 .f32 four[4]; ret; }}\n.entry b() .reqntid 32 {{ .reg .b32 %r; mov.u32 %r, dyn; \
         ret; }}\n"
    );
    let module = Module::parse("a.ptx", &text).unwrap();
    let names: Vec<&str> = module.entries().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let a = module.entry("a").unwrap();
    let sizes: Vec<_> = a
        .params
        .iter()
        .map(|p| (p.name.as_str(), p.size, p.align))
        .collect();
    assert_eq!(sizes, [("x", 8, 8), ("s", 24, 8), ("y", 4, 4)]);
    assert_eq!(
        (a.maxntid, a.minnctapersm, a.maxnreg),
        (Some([64, 2, 1]), Some(3), Some(40))
    );
    assert_eq!((a.static_shared, a.dynamic_shared, a.line), (32, false, 6));
    let b = module.entry("b").unwrap();
    assert_eq!(
        (b.reqntid, b.static_shared, b.dynamic_shared),
        (Some([32, 1, 1]), 0, true)
    );
    assert!(module.entry("c").is_none());
    assert_eq!((module.version, module.target.as_str()), ((7, 0), "sm_80"));
}

fn lints(text: &str) -> Vec<(LintKind, u32)> {
    let module = Module::parse("a.ptx", text).unwrap();
    module
        .lint()
        .into_iter()
        .map(|l| (l.kind, l.line))
        .collect()
}

#[test]
fn weaknesses_are_told() {
    let body = |declarations: &str, code: &str| {
        format!("{HEAD}.entry k(.param .u64 x) .maxntid 32 {{\n{declarations}\n{code}\nret;\n}}\n")
    };
    let load = "ld.param.u64 %x, [x];\nst.global.f32 [%x], %f;";
    let base = ".reg .b64 %x; .reg .f32 %f;";
    let set = "mov.f32 %f, 0f3f800000;";
    assert_eq!(lints(&body(base, &format!("{set} {load}"))), []);
    for op in ["add.f32", "sub.f32", "mul.f32"] {
        let code = format!("{set} {op} %f, %f, %f; {load}");
        assert_eq!(lints(&body(base, &code)), [(LintKind::UnqualifiedFloat, 7)]);
    }
    let unused = format!("{base} .reg .b32 %a;");
    assert_eq!(
        lints(&body(&unused, &format!("{set} {load}"))),
        [(LintKind::UnusedRegister, 6)]
    );
    let code = format!("mov.u32 %a, 1; {set} {load}");
    assert_eq!(
        lints(&body(&unused, &code)),
        [(LintKind::UnusedRegister, 6)]
    );
    let range = format!("{base} .reg .b32 %a<3>;");
    let code =
        format!("mov.u32 %a0, 1; add.u32 %a1, %a0, %a0; st.global.u32 [%x], %a1; {set} {load}");
    let code = code.replacen("mov.u32", "ld.param.u64 %x, [x]; mov.u32", 1);
    assert_eq!(lints(&body(&range, &code)), [(LintKind::UnusedRegister, 6)]);
    assert_eq!(lints(&body(base, load)), [(LintKind::UnusedRegister, 6)]);
    let code = format!("{set} LABEL: {load}");
    assert_eq!(lints(&body(base, &code)), [(LintKind::UnusedLabel, 7)]);
    assert_eq!(lints(&body("", "")), [(LintKind::UnusedParam, 5)]);
    let code = format!("{set} {load}");
    let shared = format!("{base} .shared .b8 s[4];");
    assert_eq!(lints(&body(&shared, &code)), [(LintKind::UnusedShared, 6)]);
    let after = format!("{set} {load} bra END; {set}\nEND:");
    assert_eq!(lints(&body(base, &after)), [(LintKind::Unreachable, 8)]);
    let text = body(base, &code).replace(".maxntid 32", "");
    assert_eq!(lints(&text), [(LintKind::MissingMaxntid, 5)]);
    let text = body(base, &code).replace("// A test.", "");
    assert_eq!(lints(&text), [(LintKind::MissingHeader, 1)]);
    let newer = body(base, &code)
        .replace("7.0", "7.1")
        .replace("sm_80", "sm_90");
    assert_eq!(
        lints(&newer),
        [
            (LintKind::UnexplainedVersion, 2),
            (LintKind::UnexplainedVersion, 3)
        ]
    );
    let why = newer
        .replace("7.1", "7.1 // for cvt")
        .replace("sm_90", "sm_90 // for mul.bf16x2");
    assert_eq!(lints(&why), []);
    let lint = &Module::parse("a.ptx", &newer).unwrap().lint()[0];
    assert!(
        lint.to_string()
            .starts_with("a.ptx:2: UnexplainedVersion: ")
    );
}

#[test]
fn comments_scopes_and_numbers() {
    let text = with(
        "/* a comment */ mov.u32 %r0, 0x1F; { .reg .b32 %r0; mov.u32 %r0, 0b101; } mov.u32 %r1, 017; \
         mov.f32 %f0, 1.5; mov.f32 %f1, -2.5e-3; mov.f64 %d0, 0d3ff0000000000000; mov.b64 %l0, -1; \
         st.shared.f32 [box+28], %f0; ld.shared.f32 %f0, [box+4]; // end",
    );
    assert!(Module::parse("a.ptx", &text).is_ok());
}
