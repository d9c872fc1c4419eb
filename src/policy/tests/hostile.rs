//! What a peer, or a slip of the hand, can send: an answer, never an end of the process, never a silent allow.

use super::*;
use crate::policy::bounds::STACK;

/// The stack of a worker thread.
const WORKER: usize = 2 << 20;

fn on_a_worker<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(WORKER).spawn_scoped(scope, work).unwrap().join().unwrap()
    })
}

fn permit_when(condition: &str) -> String {
    format!("@id(\"p\") permit (principal, action, resource) when {{ {condition} }};")
}

/// Conditions that lean as deep as `n` goes, each in its own way.
fn leaning(n: usize) -> Vec<String> {
    let wrapped = |open: &str, middle: &str, close: &str| format!("{}{middle}{}", open.repeat(n), close.repeat(n));
    vec![
        wrapped("(", "true", ")"),
        format!("{} == 1", wrapped("[", "1", "]")),
        format!("{} == 1", wrapped("{a: ", "1", "}")),
        wrapped("if true then ", "true", " else false"),
        wrapped("[1].contains(", "1", ")"),
        vec!["true"; n + 1].join(" && "),
        vec!["context.count == 1"; n + 1].join(" || "),
        format!("{} > 0", vec!["context.count"; n + 1].join(" + ")),
        format!("principal{} == 1", ".roles".repeat(n)),
        format!("context.count{} == 1", "[\"a\"]".repeat(n)),
        wrapped("(true && ", "true", ")"),
    ]
}

#[test]
fn deep_policies_are_answered_on_a_workers_stack() {
    for n in [10, 33, 60, 500, 6_000, 100_000] {
        for condition in leaning(n) {
            let text = permit_when(&condition);
            let shown = condition.chars().take(30).collect::<String>();
            on_a_worker(|| match compile(&text) {
                Err(error) => assert!(error.to_string().len() < 2_000, "{shown} × {n}: a bounded message"),
                Ok(slice) => {
                    assert!(n <= 500, "{shown} × {n} was taken");
                    let mut known = facts(Action::Release, "research", 1);
                    known.context.insert(ContextFact::Region, Value::Text("CN".into()));
                    // Cedar may find it too deep to evaluate on this stack; what it may not do is fall
                    let decision = slice.decide(&known);
                    assert!(matches!(decision.verdict, Verdict::Allow | Verdict::DefaultDeny), "{shown} × {n}");
                    drop(slice.clauses());
                }
            });
        }
    }
}

#[test]
fn the_stack_fits_the_bounds_twice() {
    // the deepest nesting, and the rest of the operators on its way down
    let level = |open: &str| format!("({open} && ").repeat(30);
    let worst = [
        permit_when(&format!("{}true{}", level("true && true && true"), ")".repeat(30))),
        permit_when(&format!("{}true{}", "if (true) then ".repeat(29), " else false".repeat(29))),
        permit_when(&vec!["true"; 298].join(" && ")),
        permit_when(&format!("{} > 0", vec!["context.count"; 290].join(" + "))),
        permit_when(&format!("{}1{} == 1", "[".repeat(31), "]".repeat(31))),
        permit_when(&format!("{}1{} == 1", "{a: ".repeat(31), "}".repeat(31))),
        permit_when(&format!("principal{} == 1", ".a".repeat(590))),
    ];
    for text in &worst {
        crate::policy::bounds::check(text).unwrap_or_else(|out| panic!("{}: {text}", out.problem));
        let source = |text| PolicySource { name: "own.cedar", text };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(STACK / 2)
                .spawn_scoped(scope, || drop(Slice::compile_here(source(text), source(""), "", "", &columns())))
                .unwrap()
                .join()
                .unwrap();
        });
    }
}

#[test]
fn filters_are_as_shallow_as_can_be_and_never_too_deep() {
    on_a_worker(|| {
        let long = |n: usize, join: &str| vec!["grade = 1"; n].join(join);
        for text in [
            format!("filter(grade in ({}))", vec!["1"; 1_000].join(", ")),
            format!("filter({})", long(250, " or ")),
            format!("filter({})", long(250, " and ")),
        ] {
            let slice = compile_all(&permit_when("true"), "", &text, "").unwrap();
            let json = serde_json::to_string(&slice.floor()).unwrap();
            assert_eq!(serde_json::from_str::<Obligations>(&json).unwrap(), slice.floor());
        }
        // an error at the bottom was tried again at every `not (`: twenty-six seconds for two hundred bytes
        for (open, close) in
            [("(", ")"), ("not (", ")"), ("not ", ""), ("lower(", ")"), ("interval ", ""), ("case ", "")]
        {
            for n in [31, 500] {
                for end in ["grade = 1", "grade ="] {
                    let text = format!("filter({}{end}{})", open.repeat(n), close.repeat(n));
                    assert!(compile_all(&permit_when("true"), "", &text, "").is_err(), "{open} × {n}");
                }
            }
        }
        let nested = "filter(not (not (not (grade = 1 or (age = 2 and (not (age = 3)))))))";
        assert!(compile_all(&permit_when("true"), "", nested, "").is_ok());
    });
}

#[test]
fn a_fact_of_another_type_steps_around_no_forbid() {
    let slice = compile(
        r#"@id("yes") permit (principal, action, resource);
           @id("no") forbid (principal, action, resource) when { context.purpose == "marketing" };"#,
    )
    .unwrap();
    assert_eq!(slice.decide(&facts(Action::Release, "marketing", 0)).verdict, Verdict::Deny);
    assert_eq!(slice.decide(&facts(Action::Release, "research", 0)).verdict, Verdict::Allow);
    let mut mistyped = facts(Action::Release, "", 0);
    mistyped.context.insert(ContextFact::Purpose, Value::Long(7));
    let decision = slice.decide(&mistyped);
    assert_eq!(decision.verdict, Verdict::DefaultDeny);
    assert!(decision.reason.unwrap().is("fact-mistyped"));
}

#[test]
fn a_mapped_address_is_the_address_that_it_is() {
    let slice = compile(
        r#"@id("yes") permit (principal, action, resource);
           @id("inside") forbid (principal, action, resource) when { context.networkAddress.isInRange(ip("10.0.0.0/8")) };"#,
    )
    .unwrap();
    for (address, verdict) in [
        ("10.0.0.1", Verdict::Deny),
        ("::ffff:10.0.0.1", Verdict::Deny),
        ("192.0.2.1", Verdict::Allow),
        ("::ffff:192.0.2.1", Verdict::Allow),
        ("2001:db8::1", Verdict::Allow),
    ] {
        let mut from = facts(Action::Release, "", 0);
        from.context.insert(ContextFact::NetworkAddress, Value::Ip(address.parse().unwrap()));
        assert_eq!(slice.decide(&from).verdict, verdict, "{address}");
    }
}

#[test]
fn numbers_and_times_that_json_can_not_hold_are_no_allow() {
    let slice = compile(&permit_when("context.count >= 0 || true")).unwrap();
    assert_eq!(slice.decide(&facts(Action::Release, "", (1 << 53) - 1)).verdict, Verdict::Allow);
    let decision = slice.decide(&facts(Action::Release, "", 1 << 53));
    assert_eq!((decision.verdict, decision.reason.unwrap().is("policy-error")), (Verdict::DefaultDeny, true));
    let slice = compile(&permit_when("context.now > datetime(\"2020-01-01\") || true")).unwrap();
    let mut never = facts(Action::Release, "", 0);
    assert_eq!(slice.decide(&never).verdict, Verdict::Allow);
    never.context.insert(ContextFact::Now, Value::Time(Timestamp::from_millis(i64::MAX)));
    assert_eq!(slice.decide(&never).verdict, Verdict::DefaultDeny);
}

#[test]
fn what_nobody_mentions_is_not_told() {
    let slice = compile(&permit_when("context.count < 3")).unwrap();
    let request = |facts: &Facts| String::from_utf8(slice.decide(facts).request).unwrap();
    let told = request(&facts(Action::Release, "a private matter", 0));
    assert!(told.contains("\"count\":0") && !told.contains("private") && !told.contains("now"), "{told}");
    assert_eq!(told, request(&facts(Action::Release, "another", 0)));
}

#[test]
fn what_would_be_taken_and_ignored_is_refused() {
    let forbid = |condition: &str| {
        format!(
            "@id(\"y\") permit (principal, action, resource);\n@id(\"p\") forbid (principal, action, resource) when {{ {condition} }};"
        )
    };
    for (text, words) in [
        (forbid("context has regionn || 1 == 2"), vec!["policy `p`", "has regionn", "did you mean `region`"]),
        (forbid("principal has jurisdictionn && true"), vec!["has jurisdictionn", "did you mean `jurisdiction`"]),
        (forbid("resource has owner"), vec!["has owner", "no such attribute"]),
        (forbid("1 == 2"), vec!["own.cedar:2:", "policy `p`"]),
        (forbid("context.purpose == \"a\u{202e}b\""), vec!["own.cedar:2:", "U+202E"]),
        (forbid("context.algorithmus == \"x\""), vec!["policy `p`", "algorithmus"]),
        (forbid("context has frequencyy"), vec!["has frequencyy", "did you mean `frequency`"]),
        (forbid("context.frequency has minut"), vec!["has minut", "did you mean `minute`"]),
        ("@id(\"p\") permit (principal, action == Action::\"selll\", resource);".into(), vec!["selll"]),
        (
            "@id(\"p\") @before(\"approve(x)\") permit (principal, action == Action::\"discover\", resource);".into(),
            vec!["policy `p`", "@before", "`release` or a use"],
        ),
        (
            "@id(\"p\") @after(\"notify\") permit (principal, action == Action::\"read\", resource);".into(),
            vec!["policy `p`", "@after", "`release`"],
        ),
        (
            "@id(\"p\") permit (principal, action in [Action::\"release\", Action::\"relase\"], resource);".into(),
            vec!["own.cedar:1:", "relase"],
        ),
        (
            "@id(\"p\") @during(\"drop(name)\") permit (principal, action == Action::\"read\", resource);".into(),
            vec!["policy `p`", "@during", "release"],
        ),
        ("@id(\"a\\nb\") permit (principal, action, resource);".into(), vec!["own.cedar", "a\\nb", "letters"]),
        (format!("@id(\"{}\") permit (principal, action, resource);", "x".repeat(65)), vec!["at most 64"]),
        ("@id(\"p\") @id(\"q\") permit (principal, action, resource);".into(), vec!["own.cedar:1:", "duplicate"]),
        ("@id permit (principal, action, resource);".into(), vec!["policy number 1", "@id"]),
        (
            "@id(\"a\") permit (principal, action, resource);\npermit (principal, action, resource);".into(),
            vec!["policy number 2"],
        ),
    ] {
        let error = refusal(&text);
        for word in words {
            assert!(error.contains(word), "{text}\n  {error}\n  lacks {word}");
        }
    }
    for fine in [
        forbid("context has region && context.region == \"CN\""),
        forbid("context.purpose == \"GPS轨迹分析\""),
        "@id(\"仅供研究-1.2:a/b\") permit (principal, action, resource);".into(),
        "@id(\"p\") @during(\"drop(name)\") permit (principal, action in [Action::\"release\", Action::\"read\"], resource);".into(),
        "@id(\"p\") @during(\"drop(name)\") permit (principal, action, resource);".into(),
    ] {
        compile(&fine).unwrap_or_else(|error| panic!("{fine}\n  {error}"));
    }
}

#[test]
fn a_filter_that_could_never_select_is_refused_and_its_neighbour_taken() {
    let floor = |text: &str| compile_all(&permit_when("true"), "", text, "").map_err(|error| error.to_string());
    for (text, word) in [
        ("filter(name = '')", "IS NULL"),
        ("filter(name in ('a', ''))", "IS NULL"),
        ("filter(age = - -5)", "not handled"),
        ("filter(age > 1e3)", "write it in full"),
        ("filter(age = 1234567890123456789)", "write it in full"),
        ("filter(lower(name) = 'x')", "`lower(…)` is not handled"),
        ("filter(date '2020-01-01' = diagdateb)", "not handled"),
        ("filter(exists (select 1))", "not handled"),
        ("filter(age = 1 -- x)", "not handled"),
        ("filter(age + 1 = 2)", "not handled"),
        ("filter(agee = 1)", "did you mean `age`"),
        ("filter(AGE = 1)", "did you mean `age`"),
        ("filter(age = 'x')", "holds integers"),
        ("filter(diagdateb < '1990-01-01')", "holds dates"),
        ("hash(id, \"\")", "1 to 64"),
        ("limit(9007199254740992)", "2^53"),
        ("limit(0)", "out of range"),
        ("band(age, 0)", "out of range"),
        ("at_least(1, age)", "out of range"),
        ("year(age)", "needs a column of dates"),
        ("band(name, 10)", "needs a column of numbers"),
        ("round(diagdateb, 1)", "needs a column of numbers"),
        ("drop(agee)", "did you mean `age`"),
        ("drop()", "at least one column"),
        ("watermark", "other columns by which a row is known"),
        ("watermark(age)", "other columns by which a row is known"),
        ("watermark(age, age)", "other columns by which a row is known"),
        ("watermark(name, age)", "needs a column of numbers"),
        ("watermark(age, idd)", "did you mean `id`"),
    ] {
        let error = floor(text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.contains("the offer's floor") && error.contains(word), "{text}: {error}");
    }
    for fine in [
        "filter(name is null)",
        "filter(age = -5 and name <> 'x')",
        "filter(age >= 1.5)",
        "filter(not (age between 1 and 5) or name in ('a', 'b'))",
        "filter(diagdateb = '17-08-1984')",
        "limit(9007199254740991)",
        "hash(id, \"person\"); year(diagdateb); round(age, -1)",
    ] {
        assert!(floor(fine).is_ok(), "{fine}: {:?}", floor(fine).err());
    }
}

#[test]
fn no_two_obligations_share_a_hash() {
    let limit = |rows| Obligations { limit: Some(rows), ..Obligations::default() }.sha256();
    let hashes = BTreeSet::from([limit(1), limit(u64::MAX), limit(u64::MAX - 1), limit(1 << 53)]);
    assert_eq!(hashes.len(), 4);
    assert!(!hashes.contains(&crate::crypto::sha256(b"")));
}

proptest! {
    #[test]
    fn no_policy_text_ends_the_process(text in "[a-z@(){}\\[\\];:,.\"&|=!?/ \\\\\n0-9\u{202e}\u{7814}]{0,200}") {
        let _ = on_a_worker(|| compile(&text).map(drop));
    }
}
