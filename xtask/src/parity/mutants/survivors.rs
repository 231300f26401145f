//! Changes that may survive, and why.

use super::operators::Change;

/// A change that changes nothing that a kernel may be held to.
struct Explained {
    text: &'static str,
    /// Nothing for any entry of the text.
    entry: &'static str,
    kind: &'static str,
    /// Part of the line, its comment included.
    line: &'static str,
    reason: &'static str,
}

const fn explained(
    text: &'static str,
    entry: &'static str,
    kind: &'static str,
    line: &'static str,
    reason: &'static str,
) -> Explained {
    Explained {
        text,
        entry,
        kind,
        line,
        reason,
    }
}

const REDUCED: &str = "exp(x) = exp2(k) exp(x - k ln 2) holds for every whole k, so a k off by one only moves the \
    argument of ex2.approx a little outside of [-1/2, 1/2]";
const TAIL: &str = "the lower part of a constant in two parts: a quarter of it is below one unit in the last \
    place of the result; tests/scan/accuracy.rs counts those units where they matter";
const SMALL: &str = "what the argument lost is much only for exponentials far below the largest, and parity counts in \
    units of the largest; kernels/tests/families/softmax.rs holds small ones to their own size";
const THRESHOLD: &str = "both formulas hold at the threshold itself";
const GROUPS: &str = "groups of four and single ones add the same terms in the same order";
const NO_STATE: &str = "only for states that do not exist: their B and C are zero";
const NO_TAP: &str =
    "only where a tap does not exist: what reads it has the same guard as its load";
const NO_GREY: &str = "no grey value and no probability of one lies at the threshold";
const OUTSIDE: &str =
    "outside of the matrices the other factor is zero, or the product is not stored";
const REFUSED: &str = "ids outside of the table are refused on the host, before the launch";

const EXPLAINED: &[Explained] = &[
    explained("elementwise.ptx", "", "constant", "// log2 e", REDUCED),
    explained(
        "elementwise.ptx",
        "",
        "constant",
        "// - ln 2, the rest",
        TAIL,
    ),
    explained("conv1d.ptx", "", "constant", "// and what log2 e did", TAIL),
    explained(
        "scan_forward.ptx",
        "",
        "constant",
        "// and what log2 e did",
        TAIL,
    ),
    explained(
        "scan_backward.ptx",
        "",
        "constant",
        "// and what log2 e did",
        TAIL,
    ),
    explained(
        "conv1d.ptx",
        "",
        "constant",
        "// 110: e is 0 there already",
        "e is 0 in float32 from 104 on",
    ),
    explained("conv1d.ptx", "", "addend", "// and what log2 e did", TAIL),
    explained(
        "conv1d.ptx",
        "",
        "constant",
        ", 0f00000000, %e, %pq;",
        "only below -110, which random inputs do not reach; the tests of special values do",
    ),
    explained("conv1d.ptx", "", "bound", "// below -110", THRESHOLD),
    explained("conv1d.ptx", "", "bound", ", 0f00000000;", THRESHOLD),
    explained("conv1d.ptx", "", "constant", "%w0, 0f", NO_TAP),
    explained("conv1d.ptx", "", "constant", "%w1, 0f", NO_TAP),
    explained(
        "scan_forward.ptx",
        "",
        "bound",
        "%hat, 0f3F000000;",
        THRESHOLD,
    ),
    explained(
        "scan_forward.ptx",
        "",
        "constant",
        "%hat, 0f3F000000;",
        "at 5/8 the series is off by 1.3e-6, about what parity allows: ten units in the last place of an \
         output's largest magnitude",
    ),
    explained("scan_forward.ptx", "", "constant", "%inv", NO_STATE),
    explained(
        "scan_forward.ptx",
        "",
        "addend",
        "%y0, %h0, %C0, %y0;",
        "the first term of a sum that starts at zero",
    ),
    explained(
        "scan_backward.ptx",
        "",
        "bound",
        "%hat, 0f3F000000;",
        THRESHOLD,
    ),
    explained(
        "scan_backward.ptx",
        "",
        "bound",
        "%hat, 0f3F800000;",
        THRESHOLD,
    ),
    explained(
        "scan_backward.ptx",
        "",
        "bound",
        "%x, 0f00000000;",
        THRESHOLD,
    ),
    explained(
        "scan_backward.ptx",
        "",
        "bound",
        "%direction, 0;",
        "the two directions are independent: their order does not matter, and a launch of one \
         has the same operands for both",
    ),
    explained("loss.ptx", "", "bound", "// -0.999", NO_GREY),
    explained("loss.ptx", "", "bound", "// 0.999", NO_GREY),
    explained("loss.ptx", "", "bound", "0d3D719799812DEA11", NO_GREY),
    explained(
        "loss.ptx",
        "",
        "integer",
        "%kh, %k, 2;",
        "without a bound its factors are zero, so that its terms are too",
    ),
    explained("images.ptx", "dis_clamp", "bound", "setp.", THRESHOLD),
    explained(
        "statistics.ptx",
        "dis_threshold",
        "bound",
        "%size, %limit;",
        THRESHOLD,
    ),
    explained(
        "images.ptx",
        "dis_add_noise",
        "integer",
        "shr.s32         %kh, %k, 1;",
        "2^k is the same product of any two factors that are normal numbers",
    ),
    explained("reduce.ptx", "", "bound", "%left, 4;", GROUPS),
    explained("reduce.ptx", "", "integer", "%left, 4;", GROUPS),
    explained("partials.ptx", "", "bound", "%n, %end;", GROUPS),
    explained("embed.ptx", "", "bound", "%id, %n;", REFUSED),
    explained("embed.ptx", "", "bound", "%id, %entries;", REFUSED),
    explained("embed.ptx", "", "constant", "%v, 0f7FFFFFFF;", REFUSED),
    explained(
        "norm.ptx",
        "",
        "constant",
        "mov.f32         %v, 0f00000000;",
        "the value is used only where the load after it replaces it",
    ),
    explained(
        "norm.ptx",
        "",
        "swap",
        "sub.rn.f32      %x, %x, %mean;",
        "only the square of the difference is used",
    ),
    explained(
        "softmax.ptx",
        "",
        "constant",
        "// minus infinity",
        "1 is not far enough above any row here; kernels/tests/families/softmax.rs has rows far below 0",
    ),
    explained(
        "softmax.ptx",
        "",
        "constant",
        "// -110: e is 0 there already",
        "e is 0 in float32 from 104 on",
    ),
    explained("softmax.ptx", "", "constant", "// ln 2", SMALL),
    explained(
        "softmax.ptx",
        "",
        "constant",
        "// and what log2 e did",
        SMALL,
    ),
    explained("softmax.ptx", "", "addend", "// and what log2 e did", SMALL),
    explained("softmax.ptx", "", "swap", "// and what log2 e did", SMALL),
    explained(
        "gemm.ptx",
        "",
        "constant",
        "mov.f32         %v, 0f00000000;",
        OUTSIDE,
    ),
    explained(
        "bf16.ptx",
        "dis_gemm_bf16",
        "integer",
        "mov.b32         %half, 0;",
        OUTSIDE,
    ),
    explained(
        "bf16.ptx",
        "dis_gemm_bf16",
        "integer",
        "_along, %",
        "it says which thread loads what, which is a matter of speed",
    ),
    explained(
        "bf16.ptx",
        "dis_round_bf16",
        "constant",
        "mov.f32         %odd, 0f00000000;",
        "the padding beside an odd column, which no product reads; tests/families/bf16.rs holds it to zero",
    ),
];

/// Why a change may survive.
pub fn why(text: &str, change: &Change) -> Option<&'static str> {
    EXPLAINED
        .iter()
        .find(|e| {
            e.text == text
                && e.kind == change.kind
                && (e.entry.is_empty() || e.entry == change.entry)
                && change.source.contains(e.line)
        })
        .map(|e| e.reason)
}
