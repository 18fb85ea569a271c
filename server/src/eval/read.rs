//! Questions and judgments as people have them: JSON lines with any field names, and TREC's qrels.
//!
//! A wrong line is an error that names it: a judgment that is silently lost makes every measure wrong.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::measures::Judged;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its name in the judgments.
    pub id: String,
    /// Its words.
    pub text: String,
}

/// Names of fields in JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// A question's id.
    pub id: String,
    /// A question's words.
    pub text: String,
    /// What is relevant to it: a list of ids, or an object of ids and grades.
    pub relevant: String,
}

/// Judgments by question id.
pub type Judgments = BTreeMap<String, Judged>;

impl Default for Fields {
    fn default() -> Self {
        Self {
            id: "id".to_owned(),
            text: "text".to_owned(),
            relevant: "relevant".to_owned(),
        }
    }
}

/// Questions of JSON lines, in their order, and the judgments that stand beside them.
pub fn questions(text: &str, fields: &Fields) -> Result<(Vec<Question>, Judgments), String> {
    let (mut questions, mut judgments) = (Vec::new(), Judgments::new());
    let mut seen = std::collections::HashSet::new();
    for (n, line) in lines(text) {
        let object = object(n, line)?;
        let id = id_of(n, &object, &fields.id)?;
        let words = object.get(&fields.text).and_then(Value::as_str);
        let words = words.ok_or_else(|| format!("line {n}: {:?} must be a text", fields.text))?;
        if !seen.insert(id.clone()) {
            return Err(format!("line {n}: question {id:?} is there already"));
        }
        if let Some(relevant) = object.get(&fields.relevant) {
            add_relevant(n, judgments.entry(id.clone()).or_default(), relevant, &fields.relevant)?;
        }
        questions.push(Question {
            id,
            text: words.to_owned(),
        });
    }
    Ok((questions, judgments))
}

/// Judgments: TREC's `query 0 document grade`, or JSON lines of a question's id and what is relevant to it. Which one is
/// seen from the first line.
pub fn judgments(text: &str, fields: &Fields) -> Result<Judgments, String> {
    let json = lines(text).next().is_some_and(|(_, line)| line.starts_with('{'));
    let mut judgments = Judgments::new();
    for (n, line) in lines(text) {
        if json {
            let object = object(n, line)?;
            let judged = judgments.entry(id_of(n, &object, &fields.id)?).or_default();
            let relevant = object.get(&fields.relevant);
            let relevant = relevant.ok_or_else(|| format!("line {n}: there is no {:?}", fields.relevant))?;
            add_relevant(n, judged, relevant, &fields.relevant)?;
        } else {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let &[query, _, document, grade] = parts.as_slice() else {
                return Err(format!(
                    "line {n}: a line of qrels is `query 0 document grade`, got {} words",
                    parts.len()
                ));
            };
            // Some collections judge spam below zero: as good as not relevant.
            let grade: i64 = grade
                .parse()
                .map_err(|_| format!("line {n}: the grade must be a whole number, got {grade:?}"))?;
            let grade = u32::try_from(grade.max(0)).map_err(|_| format!("line {n}: the grade is too large"))?;
            judgments
                .entry(query.to_owned())
                .or_default()
                .add(document.to_owned(), grade);
        }
    }
    Ok(judgments)
}

/// Lines that hold something, with their numbers. Some editors begin a file with a byte order mark.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.trim_start_matches('\u{feff}');
    let numbered = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty())
}

fn object(n: usize, line: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(line).map_err(|e| format!("line {n}: {e}"))
}

fn id_of(n: usize, object: &Map<String, Value>, field: &str) -> Result<String, String> {
    id(object.get(field)).ok_or_else(|| format!("line {n}: {field:?} must be a text or a whole number"))
}

/// `42` and `"42"` are the same id.
fn id(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

fn add_relevant(n: usize, judged: &mut Judged, relevant: &Value, field: &str) -> Result<(), String> {
    let wrong = || format!("line {n}: {field:?} must be a list of ids, or an object of ids and grades");
    match relevant {
        Value::Array(ids) => {
            for value in ids {
                judged.add(id(Some(value)).ok_or_else(wrong)?, 1);
            }
        }
        Value::Object(grades) => {
            for (id, grade) in grades {
                let grade = grade.as_u64().and_then(|g| u32::try_from(g).ok()).ok_or_else(wrong)?;
                judged.add(id.clone(), grade);
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_carry_their_judgments_or_not() {
        let text = r#"{"id": 1, "text": "a", "relevant": ["x", 7]}

            {"id": "2", "text": "b", "answers": []}
            {"id": "3", "text": "c", "relevant": {"x": 3, "y": 0}}"#;
        let (found, judgments) = questions(text, &Fields::default()).unwrap();
        assert_eq!(found.iter().map(|q| q.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!((judgments["1"].grade("x"), judgments["1"].grade("7")), (1, 1));
        assert!(!judgments.contains_key("2"));
        assert_eq!((judgments["3"].grade("x"), judgments["3"].grade("y")), (3, 0));
    }

    #[test]
    fn field_names_are_the_users() {
        let fields = Fields {
            id: "_id".into(),
            text: "question".into(),
            relevant: "docs".into(),
        };
        let (questions, judgments) = questions(r#"{"_id": "q", "question": "w", "docs": ["d"]}"#, &fields).unwrap();
        assert_eq!((questions[0].text.as_str(), judgments["q"].grade("d")), ("w", 1));
    }

    #[test]
    fn qrels_and_json_say_the_same() {
        let trec = judgments("q1 0 a 2\nq1 0 b 0\nq2\tQ0\tc\t1\nq2 0 spam -2\n", &Fields::default()).unwrap();
        let json = "{\"id\": \"q1\", \"relevant\": {\"a\": 2}}\n{\"id\": \"q2\", \"relevant\": [\"c\"]}";
        for same in [
            json.to_owned(),
            format!("\u{feff}{json}"),
            "\u{feff}q1 0 a 2\r\nq2 0 c 1\r\n".to_owned(),
        ] {
            assert_eq!(trec, judgments(&same, &Fields::default()).unwrap(), "{same:?}");
        }
    }

    #[test]
    fn wrong_lines_are_named() {
        let fields = Fields::default();
        for (text, says) in [
            ("{\"id\": \"q\"}", "line 1: \"text\""),
            ("{\"text\": \"q\"}", "line 1: \"id\""),
            (
                "{\"id\": \"q\", \"text\": \"t\"}\n{\"id\": \"q\", \"text\": \"t\"}",
                "line 2: question",
            ),
            (
                "{\"id\": \"q\", \"text\": \"t\", \"relevant\": \"x\"}",
                "line 1: \"relevant\"",
            ),
            ("[]", "line 1:"),
        ] {
            let error = questions(text, &fields).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        for (text, says) in [
            ("q 0 d 1\nq 0 d", "line 2: a line of qrels"),
            ("q 0 d one", "line 1: the grade"),
            ("{\"id\": \"q\"}", "line 1: there is no"),
        ] {
            let error = judgments(text, &fields).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
