//! Files: what is read of them, what is left out, and that nothing else happens whatever the bytes are.

use proptest::prelude::*;

use super::*;
use crate::rag::chunk::{ChunkSettings, Cut, chunk, title_of};
use crate::rag::line::TITLE_CHARS_MAX;

#[track_caller]
fn check(page: &str, expected: &str) {
    assert_eq!(html(page).text.trim_end(), expected, "{page}");
}

#[test]
fn a_page_is_its_visible_text_with_its_structure() {
    let page = html(include_str!("sample.html"));
    assert_eq!(page.title.as_deref(), Some("Leader election – Handbook"));
    assert_eq!(page.text, include_str!("sample.md"));
}

#[test]
fn chunks_of_a_page_know_their_headings() {
    let page = html(include_str!("sample.html"));
    let settings = ChunkSettings {
        max_tokens: 60,
        overlap_tokens: 0,
        strategy: Cut::Structure,
    };
    let words = |text: &str| text.split_whitespace().count();
    let chunks = chunk(&page.text, page.format, &settings, &words);
    let paths: Vec<String> = chunks.iter().map(|chunk| chunk.heading.join(" > ")).collect();
    assert!(
        paths.contains(&"Leader election > Terms & timeouts".to_owned()),
        "{paths:?}"
    );
    for chunk in chunks {
        assert_eq!(&page.text[chunk.span.0..chunk.span.1], chunk.text);
    }
}

#[test]
fn what_a_reader_does_not_see_is_left_out() {
    for hidden in [
        "<script>var a = '<p>x</p>';</script>",
        "<style>p { color: red }</style>",
        "<nav><ul><li>Home</ul></nav>",
        "<div role=navigation>Home</div>",
        "<div hidden><p>x</div>",
        "<p hidden>x<p>",
        "<ul><li hidden>x</ul>",
        "<span aria-hidden=\"true\">x</span>",
        "<div style=\"color: red; Display: none !important\">x</div>",
        "<template><p>x</p></template><noscript>x</noscript>",
        "<select><option>x<option>y</select><button>x</button><textarea>x</textarea>",
        "<svg><title>x</title><style>y</style><text>z</text></svg>",
        "<iframe>x</iframe><!-- x -->",
        "<img alt=x><input value=x>",
        "<b><div hidden>x</b>y</div>",
    ] {
        check(&format!("<p>before</p>{hidden}<p>after</p>"), "before\n\nafter");
    }
    check("<p>until <span hidden=until-found>found</span>", "until found");
}

#[test]
fn blocks_lists_tables_and_code_stay_apart() {
    for (page, expected) in [
        ("a<p>b<p>c<div>d</div>e", "a\n\nb\n\nc\n\nd\n\ne"),
        ("<p>one\n  <b>two</b>\u{a0}three <i> four</i></p>", "one two three four"),
        ("<p>a<br>b<br><br>c", "a\nb\nc"),
        ("<p>soft\u{ad}ly", "softly"),
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "- a\n- b\n  - c\n- d\n\ne"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
        ("<ul><li><p>a</p><p>b</p></li></ul>", "- a\n\n  b"),
        ("<dl><dt>t<dd>d<dt>u<dd>e</dl>", "t\n\nd\n\nu\n\ne"),
        ("<blockquote><p>a<p>b</blockquote>c", "> a\n\n> b\n\nc"),
        ("<pre>\nlet x = 1;\n\n  y\n</pre>z", "```\nlet x = 1;\n\n  y\n```\n\nz"),
        ("<pre>a ``` b</pre>", "````\na ``` b\n````"),
        (
            "<table><caption>C</caption><thead><tr><th>a<th>b|c<tbody><tr><td>1<td><p>2</p><p>3</p></table>d",
            "C\n\n| a | b\\|c |\n|---|---|\n| 1 | 2 3 |\n\nd",
        ),
        ("<table><tr><td>only</td></tr></table>", "only"),
        // A table that holds headings or tables arranges a page.
        (
            "<table><tr><td>menu<td><h2>H</h2><p>p</table>q",
            "menu\n\n## H\n\np\n\nq",
        ),
        (
            "<table><tr><td><table><tr><td>a<td>b</table><td>c</table>",
            "| a | b |\n|---|---|\n\nc",
        ),
        ("<h1>A <em>b</em><br>c</h1>d", "# A b c\n\nd"),
        ("<h1>a<h2>b</h2></h1>", "# a\n\n## b"),
        ("<h3></h3>a", "a"),
        ("<b><p>a</b>b</p>c", "ab\n\nc"),
        ("<details><summary>s</summary>d</details>", "s\n\nd"),
        ("&lt;b&gt; &amp; &copy; &#x4f60;", "\\<b> & © 你"),
    ] {
        check(page, expected);
    }
}

#[test]
fn text_that_looks_like_markdown_heads_nothing() {
    for text in [
        "# a",
        "a<br>===",
        "a<br>---",
        "```",
        "~~~ x",
        "+++",
        "> # x",
        "&lt;script>",
        "###### x",
    ] {
        let page = html(&format!("<p>{text}</p><h2>Real</h2><p>b</p>"));
        assert_eq!(
            title_of(&page.text, page.format).as_deref(),
            Some("Real"),
            "{}",
            page.text
        );
    }
    let page = html("<p>---</p><p>title: no</p><p>---</p><h1>Yes</h1>");
    assert_eq!(
        title_of(&page.text, page.format).as_deref(),
        Some("Yes"),
        "{}",
        page.text
    );
}

#[test]
fn bytes_are_read_in_their_character_set() {
    let body = "<p>Größe: 5 €, ça va, 日本語のテキスト、読みやすい文章です";
    for (label, encoding) in [("shift_jis", encoding_rs::SHIFT_JIS), ("euc-jp", encoding_rs::EUC_JP)] {
        let text = "<p>日本語のテキスト、読みやすい文章です";
        for meta in [
            format!("<meta charset=\"{label}\">"),
            format!("<META http-equiv=content-type content='text/html; charset={label}'>"),
        ] {
            let bytes = encoding.encode(&format!("{meta}{text}")).0.into_owned();
            assert_eq!(html_bytes(&bytes).text.trim(), &text[3..], "{meta}");
        }
        // Undeclared, it is what it looks like.
        let long = format!("{text}{}", "これは長い文章です。".repeat(20));
        assert_eq!(html_bytes(&encoding.encode(&long).0).text.trim(), &long[3..], "{label}");
    }
    let latin = encoding_rs::WINDOWS_1252
        .encode("<meta charset=latin1><p>Größe: 5 €")
        .0
        .into_owned();
    assert_eq!(html_bytes(&latin).text.trim(), "Größe: 5 €");
    assert_eq!(html_bytes(body.as_bytes()).text.trim(), &body[3..]);
    let mut wide = vec![0xff, 0xfe];
    wide.extend(body.encode_utf16().flat_map(u16::to_le_bytes));
    assert_eq!(html_bytes(&wide).text.trim(), &body[3..]);
}

/// Time in the square of the depth, or of anything, would not end within the test's patience.
#[test]
fn large_and_deep_pages_end() {
    for unit in [
        "<div>",
        "<b>",
        "<p>",
        "</x>",
        "<table><tr><td>",
        "<ul><li>",
        "<a href=x>",
        "<svg>",
        "<blockquote>",
        "&amp;",
        "<",
        "<h1>",
        "</p>",
        "<pre>",
        "<!--",
        "<script>",
        "<b><div></b>",
        "<p><b><b><b><b>",
    ] {
        let page = unit.repeat(400_000 / unit.len());
        let text = html(&page).text;
        assert!(text.len() <= 8 * page.len(), "{unit}: {}", text.len());
    }
}

/// One tag of many attributes: time in the square of their number would be minutes.
#[test]
fn a_tag_of_many_attributes_ends() {
    let names: Vec<String> = (0..300_000).map(|n| format!("a{n}=\"\"")).collect();
    for tag in [
        format!("<div {}>", names.join(" ")),
        format!("</div {}>", names.join(" ")),
    ] {
        check(&format!("<div>{tag}text"), "text");
    }
}

#[test]
fn of_an_attribute_that_is_there_twice_the_first_counts() {
    check("<p style='' style='display: none'>seen</p>", "seen");
    check("<p hidden style=''>unseen</p>", "");
}

#[test]
fn a_title_is_bounded() {
    let page = html(&format!("<title>{}</title><p>x", "long ".repeat(100_000)));
    assert_eq!(page.title.unwrap().chars().count(), TITLE_CHARS_MAX + 1);
}

// ---- PDF ----

/// A file of these objects, the first being the catalogue, with its table of places.
fn pdf_of(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.5\n".to_vec();
    let mut places = Vec::new();
    for (n, object) in objects.iter().enumerate() {
        places.push(file.len());
        file.extend(format!("{} 0 obj\n", n + 1).bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    let table = file.len();
    file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    for place in places {
        file.extend(format!("{place:010} 00000 n \n").bytes());
    }
    let size = objects.len() + 1;
    file.extend(format!("trailer\n<< /Size {size} /Root 1 0 R /Info 3 0 R >>\nstartxref\n{table}\n%%EOF\n").bytes());
    file
}

fn stream(dictionary: &str, content: &[u8]) -> Vec<u8> {
    let mut object = format!("<< {dictionary} /Length {} >>\nstream\n", content.len()).into_bytes();
    object.extend(content);
    object.extend(b"\nendstream");
    object
}

/// One page for each content, with the font `F1` in Latin letters, `F2` with a map, and the form `X`.
fn pages(contents: &[&str], form: &str) -> Vec<u8> {
    let first_page = 8;
    let kids: Vec<String> = (0..contents.len())
        .map(|n| format!("{} 0 R", first_page + 2 * n))
        .collect();
    let map = "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapName /X def\n/CMapType 2 def\n\
               1 begincodespacerange\n<0000> <ffff>\nendcodespacerange\n2 beginbfchar\n<0001> <4f60>\n<0002> <597d>\n\
               endbfchar\nendcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n";
    let resources = "<< /Font << /F1 4 0 R /F2 5 0 R >> /XObject << /X 7 0 R >> >>";
    let mut objects = vec![
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        format!(
            "<< /Type /Pages /Count {} /Kids [{}] /Resources {resources} >>",
            contents.len(),
            kids.join(" ")
        )
        .into_bytes(),
        b"<< /Title (A small\n file) >>".to_vec(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_vec(),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 6 0 R \
          /DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /DW 1000 >>] >>"
            .to_vec(),
        stream("", map.as_bytes()),
        stream("/Type /XObject /Subtype /Form /BBox [0 0 9 9]", form.as_bytes()),
    ];
    for (n, content) in contents.iter().enumerate() {
        let page = format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {} 0 R >>",
            first_page + 2 * n + 1
        );
        objects.push(page.into_bytes());
        objects.push(stream("", content.as_bytes()));
    }
    pdf_of(&objects)
}

fn read(bytes: &[u8]) -> Result<Extracted, ExtractError> {
    pdf(bytes, &|| false)
}

#[test]
fn a_pdf_is_its_text_with_spaces_lines_and_paragraphs_where_they_are_seen() {
    let first = "BT /F1 12 Tf 72 720 Td (Leader) Tj ( election) Tj 0 -14 Td (needs a quo-) Tj 0 -14 Td (rum of \\(n/2\\)+1) Tj \
                 0 -40 Td [(T) 80 (erms) -300 (grow.)] TJ ET";
    let second = "q 2 0 0 2 0 0 cm BT /F1 6 Tf 1 0 0 1 36 360 Tm (scaled) Tj 40 0 Td (words) Tj ET Q \
                  BT /F2 12 Tf 72 600 Td <00010002> Tj ET";
    let file = pages(&[first, "", second], "");
    let read = read(&file).unwrap();
    assert_eq!(read.title.as_deref(), Some("A small file"));
    assert_eq!(read.format, TextFormat::Plain);
    assert_eq!(
        read.text,
        "Leader election\nneeds a quorum of (n/2)+1\n\nTerms grow.\n\nscaled words\n\n你好"
    );
}

#[test]
fn the_sample_file_reads_as_it_looks() {
    let read = read(include_bytes!("sample.pdf")).unwrap();
    assert_eq!(read.title.as_deref(), Some("Field notes"));
    assert_eq!(
        read.text,
        "Field notes\n\nCairns mark the path where snow hides it. Each traveller\nadds a stone, so that the next one finds \
         the way.\n\nBuild on rock, never on moss."
    );
}

#[test]
fn forms_are_part_of_their_page_and_one_that_holds_itself_ends() {
    let file = pages(&["/X Do"], "BT /F1 12 Tf 10 10 Td (in a form) Tj ET");
    assert_eq!(read(&file).unwrap().text, "in a form");
    // Twice itself, twelve deep, is 4,096 times.
    let file = pages(&["/X Do"], "BT /F1 1 Tf (x) Tj ET /X Do /X Do");
    assert!(read(&file).unwrap().text.len() < 100_000);
}

#[test]
fn what_cannot_be_read_says_why() {
    let scanned = pages(&["q 100 0 0 100 0 0 cm Q"], "");
    assert_eq!(read(&scanned).unwrap_err(), ExtractError::NoText);
    for bytes in [&b""[..], b"hello", b"%PDF-1.7\n", &scanned[..60]] {
        assert!(
            matches!(read(bytes), Err(ExtractError::Unreadable(_))),
            "{:?}",
            read(bytes)
        );
    }
    assert_eq!(pdf(&pages(&["BT ET"], ""), &|| true), Err(ExtractError::Stopped));

    let mut document = lopdf::Document::load_mem(&pages(&["BT /F1 9 Tf (secret) Tj ET"], "")).unwrap();
    document.trailer.set(
        "ID",
        lopdf::Object::Array(vec![
            lopdf::Object::string_literal("id"),
            lopdf::Object::string_literal("id"),
        ]),
    );
    for (password, expected) in [("", Ok("secret".to_owned())), ("word", Err(ExtractError::Encrypted))] {
        let mut document = document.clone();
        let version = lopdf::EncryptionVersion::V2 {
            document: &document,
            owner_password: "owner",
            user_password: password,
            key_length: 128,
            permissions: lopdf::Permissions::all(),
        };
        let state = lopdf::EncryptionState::try_from(version).unwrap();
        document.encrypt(&state).unwrap();
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).unwrap();
        assert_eq!(
            read(&bytes).map(|read| read.text),
            expected,
            "user password {password:?}"
        );
    }
}

#[test]
fn a_stream_that_inflates_without_end_is_refused() {
    use std::io::Write;
    let mut zeros = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..80 {
        zeros.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = stream("/Filter /FlateDecode", &zeros.finish().unwrap());
    let file = pdf_of(&[
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>".to_vec(),
        b"<< >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /Contents 5 0 R >>".to_vec(),
        bomb,
    ]);
    assert!(
        matches!(read(&file), Err(ExtractError::TooLarge(_))),
        "{:?}",
        read(&file)
    );
}

/// A page that names one stream a thousand times draws it a thousand times.
#[test]
fn what_is_read_again_and_again_is_counted_each_time() {
    let objects = |stream_of: Vec<u8>| {
        let again = "5 0 R ".repeat(40_000);
        pdf_of(&[
            b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
            b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>".to_vec(),
            b"<< >>".to_vec(),
            format!("<< /Type /Page /Parent 2 0 R /Contents [{again}] >>").into_bytes(),
            stream_of,
        ])
    };
    // Stored, it is 10 KB; inflated, nothing.
    let mut empty = vec![0x78, 0x01];
    empty.extend([0, 0, 0, 0xff, 0xff].repeat(2_000));
    empty.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 1]);
    let file = objects(stream("/Filter /FlateDecode", &empty));
    assert!(
        matches!(read(&file), Err(ExtractError::TooLarge(_))),
        "{:?}",
        read(&file)
    );
    assert_eq!(pdf(&file, &|| true), Err(ExtractError::Stopped));
}

#[test]
fn deep_nesting_does_not_end_the_stack() {
    for nested in ["[", "<< /A ", "(", "[<< /A "] {
        let file = pages(&[&format!("{} Tj", nested.repeat(50_000))], "");
        assert!(read(&file).is_err());
        let mut objects = vec![b"<< /Type /Catalog /Pages 2 0 R >>".to_vec()];
        objects.push(nested.repeat(50_000).into_bytes());
        assert!(read(&pdf_of(&objects)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        html_bytes(&bytes);
        let _ = read(&bytes);
    }

    #[test]
    fn any_page_is_survived_and_shows_no_script(parts in prop::collection::vec(prop::sample::select(PARTS), 0..40)) {
        let page = parts.concat();
        let read = html(&page);
        prop_assert!(!read.text.contains("SECRET") || page.contains("</script") || page.contains("<svg"), "{page:?}: {:?}", read.text);
        let words = |text: &str| text.split_whitespace().count();
        let settings = ChunkSettings { max_tokens: 16, overlap_tokens: 4, strategy: Cut::Structure };
        for chunk in chunk(&read.text, read.format, &settings, &words) {
            prop_assert_eq!(&read.text[chunk.span.0..chunk.span.1], chunk.text);
        }
    }

    #[test]
    fn a_damaged_pdf_is_an_error_or_a_text(changes in prop::collection::vec((0usize..4000, any::<u8>()), 1..12), cut in 0usize..4000) {
        let mut file = pages(&["BT /F1 12 Tf 72 720 Td (Some text) Tj ET", "/X Do"], "BT /F1 9 Tf (form) Tj ET /X Do");
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        let _ = read(&file);
        file.truncate(cut);
        let _ = read(&file);
    }
}

const PARTS: &[&str] = &[
    "<p>",
    "</p>",
    "<div hidden>",
    "</div>",
    "<ul>",
    "<li>",
    "</ul>",
    "<table>",
    "<tr>",
    "<td>",
    "</td>",
    "</table>",
    "<h2>",
    "</h2>",
    "<pre>",
    "</pre>",
    "<br>",
    "text ",
    "# ",
    "---",
    "&amp;",
    "<script>SECRET",
    "</script>",
    "<title>",
    "</title>",
    "<svg>",
    "</svg>",
    "<b>",
    "</b>",
    "<nav>",
    "</nav>",
    "<blockquote>",
    "</blockquote>",
    "你好",
    "\n",
    "<",
    ">",
    "\0",
    "```",
    "<textarea>",
    "</textarea>",
];
