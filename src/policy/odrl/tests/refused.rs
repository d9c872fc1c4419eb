//! What is not understood is refused, at its place and by its name; what connectors send is taken.

use serde_json::{Value as Json, json};

use super::{compile, from_odrl, to_odrl};
use crate::error::Refusal;

fn permission(rule: Json) -> Json {
    json!({ "@type": "Offer", "@id": "o", "permission": [rule] })
}

fn constrained(constraint: Json) -> Json {
    permission(json!({ "action": "use", "constraint": [constraint] }))
}

fn atom(left: &str, operator: &str, right: Json) -> Json {
    json!({ "leftOperand": left, "operator": operator, "rightOperand": right })
}

#[test]
fn nothing_is_accepted_and_ignored() {
    let duty = |duty: Json| permission(json!({ "action": "use", "duty": [duty] }));
    for (odrl, at, words) in [
        (json!([]), "/", "as an object"),
        (json!({ "@type": "Offer" }), "/", "neither a permission nor a prohibition"),
        (json!({ "permission": [] }), "/", "neither"),
        (json!({ "permision": [] }), "/permision", "did you mean `permission`"),
        (
            json!({ "permission": { "action": "use" }, "profile": "https://w3id.org/catenax/policy/" }),
            "/profile",
            "only profile",
        ),
        (json!({ "permission": { "action": "use" }, "inheritFrom": "x" }), "/inheritFrom", "no such member"),
        (json!({ "permission": { "action": "use" }, "conflict": "perm" }), "/conflict", "always wins"),
        (json!({ "permission": { "action": "use" }, "odrl:permission": [] }), "permission", "twice"),
        (json!({ "permission": { "action": "use" }, "@type": "Ticket" }), "/@type", "expected Set"),
        (
            json!({ "permission": { "action": "use" }, "obligation": [{ "action": "inform" }] }),
            "/obligation",
            "its `duty`",
        ),
        (json!({ "permission": { "action": "use" }, "target": { "@type": "AssetCollection" } }), "/target", "one name"),
        (
            json!({ "permission": { "action": "use" }, "@context": "https://evil.example/" }),
            "/@context",
            "contexts that are known",
        ),
        (
            json!({ "permission": { "action": "use" }, "@context": { "permission": "odrl:prohibition" } }),
            "/@context/permission",
            "another meaning",
        ),
        (
            json!({ "permission": { "action": "use" }, "@context": { "odrl": "https://evil.example/" } }),
            "/@context/odrl",
            "another meaning",
        ),
        (
            json!({ "permission": { "action": "use" }, "@context": { "purpose": "https://evil.example/" } }),
            "/@context/purpose",
            "another meaning",
        ),
        (permission(json!({ "constraint": [] })), "/permission/0", "needs an `action`"),
        (permission(json!({ "action": "print" })), "/permission/0/action", "`print`: no action"),
        (permission(json!({ "action": "odrl:raed" })), "/permission/0/action", "did you mean `read`"),
        (permission(json!({ "action": "play" })), "/permission/0/action", "no action that is known"),
        (
            permission(json!({ "action": { "@id": "use", "refinement": [] } })),
            "/permission/0/action/refinement",
            "no such member",
        ),
        (permission(json!({ "action": "use", "remedy": [] })), "/permission/0/remedy", "no such member"),
        (json!({ "prohibition": [{ "action": "use", "duty": [] }] }), "/prohibition/0/duty", "no such member"),
        (permission(json!({ "action": "use", "@type": "Prohibition" })), "/permission/0/@type", "expected Permission"),
        (
            constrained(json!({ "xone": [atom("purpose", "eq", json!("x"))] })),
            "/permission/0/constraint/0/xone",
            "no such member",
        ),
        (constrained(json!({ "andSequence": [] })), "andSequence", "no such member"),
        (constrained(json!({ "and": [] })), "/permission/0/constraint/0/and", "nothing in it"),
        (
            constrained(json!({ "and": [{ "or": [json!({ "@id": "urn:c1" })] }] })),
            "/permission/0/constraint/0/and/0/or/0",
            "a constraint has",
        ),
        (
            constrained(json!({ "leftOperand": "purpose", "operator": "eq" })),
            "/permission/0/constraint/0",
            "a constraint has",
        ),
        (
            constrained(json!({ "leftOperand": "payAmount", "operator": "eq", "rightOperand": "1", "unit": "x" })),
            "/unit",
            "no such member",
        ),
        (
            constrained(json!({ "leftOperand": "purpose", "operator": "eq", "rightOperandReference": "x" })),
            "/rightOperandReference",
            "no such member",
        ),
        (constrained(atom("cx-policy:Membership", "eq", json!("active"))), "/leftOperand", "cx-policy:Membership"),
        (constrained(atom("purpos", "eq", json!("x"))), "/leftOperand", "did you mean `purpose`"),
        (constrained(atom("elapsedTime", "eq", json!("P1D"))), "/leftOperand", "no left operand"),
        (constrained(atom("purpose", "isA", json!("x"))), "/operator", "`isA`: no operator"),
        (constrained(atom("purpose", "lteq", json!("x"))), "/operator", "nothing that `purpose` is compared by"),
        (constrained(atom("spatial", "isPartOf", json!("CN"))), "/operator", "nothing that `spatial`"),
        (constrained(atom("purpose", "hasPart", json!("x"))), "/rightOperand", "what is a set"),
        (constrained(atom("purpose", "isAnyOf", json!([]))), "/rightOperand", "nothing in it"),
        (
            constrained(atom("purpose", "eq", json!({ "@value": "x", "@language": "en" }))),
            "/rightOperand/@language",
            "no such member",
        ),
        (
            constrained(atom("purpose", "eq", json!({ "@value": "x", "@type": "xsd:integer" }))),
            "/rightOperand/@type",
            "xsd:string",
        ),
        (constrained(atom("count", "lteq", json!("three"))), "/rightOperand", "whole number"),
        (constrained(atom("count", "lteq", json!(2.5))), "/rightOperand", "whole number"),
        (constrained(atom("count", "lt", json!(i64::MIN))), "/rightOperand", "out of range"),
        (constrained(atom("dateTime", "lt", json!("2026-12-31"))), "/rightOperand", "with its zone"),
        (constrained(atom("dateTime", "lt", json!("2026-12-31T00:00:00.0005Z"))), "/rightOperand", "millisecond"),
        (constrained(atom("payAmount", "gteq", json!("1.23456"))), "/rightOperand", "four decimal places"),
        (duty(json!({ "action": "attribute" })), "/permission/0/duty/0/action", "no duty"),
        (duty(json!({ "action": "anonymize" })), "/permission/0/duty/0/action", "no duty"),
        (duty(json!({ "action": "inform", "consequence": [] })), "/duty/0/consequence", "no such member"),
        (
            duty(json!({ "action": "inform", "constraint": [atom("event", "eq", json!("x"))] })),
            "/duty/0/action",
            "no duty",
        ),
        (duty(json!({ "action": "delete" })), "/duty/0/action", "no duty"),
        (
            duty(json!({ "action": "delete", "constraint": [atom("elapsedTime", "lteq", json!("P1M"))] })),
            "/rightOperand",
            "P90D",
        ),
        (
            duty(json!({ "action": "delete", "constraint": [atom("dateTime", "lteq", json!("P1D"))] })),
            "/rightOperand",
            "elapsedTime",
        ),
        (
            duty(
                json!({ "action": "https://w3id.org/counterseal/ns#hash", "constraint": [atom("https://w3id.org/counterseal/ns#arguments", "eq", json!("id); seal; drop(id"))] }),
            ),
            "/duty/0/action",
            "one thing",
        ),
        (duty(json!({ "action": "https://w3id.org/counterseal/ns#hahs" })), "/duty/0/action", "no duty"),
        (
            permission(json!({ "action": "read", "duty": [{ "action": "https://w3id.org/counterseal/ns#seal" }] })),
            "/permission/0/duty/0",
            "the copy that leaves",
        ),
    ] {
        let error = match from_odrl(&odrl) {
            Ok(text) => panic!("taken: {odrl}\n{text}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(at) && error.contains(words), "{odrl}\n  {error}\n  lacks {at} or {words}");
    }
    let deep = (0..40).fold(atom("purpose", "eq", json!("x")), |inner, _| json!({ "and": [inner] }));
    assert!(from_odrl(&constrained(deep)).unwrap_err().to_string().contains("deeper"));
    let many = json!({ "permission": vec![json!({ "action": "use" }); 300] });
    assert!(from_odrl(&many).unwrap_err().to_string().contains("256"));
}

#[test]
fn what_connectors_send_is_understood() {
    for (odrl, cedar) in [
        // EDC, as it compacts with its own vocabulary
        (
            json!({
                "@context": { "@vocab": "https://w3id.org/edc/v0.0.1/ns/", "odrl": "http://www.w3.org/ns/odrl/2/" },
                "@id": "Y29udHJhY3Q=:YXNzZXQ=:MTIz", "@type": "odrl:Offer",
                "odrl:permission": {
                    "odrl:action": { "@id": "odrl:use" },
                    "odrl:constraint": {
                        "odrl:leftOperand": { "@id": "odrl:spatial" },
                        "odrl:operator": { "@id": "odrl:eq" },
                        "odrl:rightOperand": "eu",
                    },
                },
                "odrl:prohibition": [], "odrl:obligation": [],
            }),
            "when { context.region == \"eu\" }",
        ),
        // the same of older days
        (json!({ "odrl:permission": { "odrl:action": { "odrl:type": "USE" } } }), "permit (principal, action in ["),
        // sovity's and its descendants'
        (
            json!({
                "@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Set",
                "permission": [{ "action": "use", "constraint": [{ "and": [
                    atom("REFERRING_CONNECTOR", "odrl:eq", json!("MDSLXXX.XXXXX")),
                    atom("POLICY_EVALUATION_TIME", "odrl:lt", json!("2026-07-20T12:34:56Z")),
                ]}]}],
                "obligation": [], "prohibition": [],
            }),
            "principal == Participant::\"MDSLXXX.XXXXX\" && context.now < datetime(\"2026-07-20T12:34:56.000Z\")",
        ),
        (
            constrained(atom("REFERRING_CONNECTOR", "isPartOf", json!("MDSLXXX, MDSLYYY"))),
            "(principal in [Participant::\"MDSLXXX\", Participant::\"MDSLYYY\"])",
        ),
        // the protocol's own shapes
        (permission(json!({ "action": "use" })), "permit (principal, action in ["),
        (
            json!({ "@type": "Agreement", "@id": "a", "target": { "@id": "d" }, "assigner": "p", "assignee": "c", "permission": [{ "action": "use" }] }),
            "resource == Dataset::\"d\" && principal == Participant::\"c\" && resource.provider == \"p\"",
        ),
        (constrained(atom("odrl:count", "odrl:lteq", json!(3))), "context.count < 3"),
        (constrained(atom("odrl:count", "lt", json!("3"))), "context.count < 2"),
        (constrained(atom("odrl:count", "eq", json!("1"))), "context.count == 0"),
        (
            constrained(atom("odrl:recipient", "isAnyOf", json!([{ "@id": "did:web:x" }]))),
            "principal in [Participant::\"did:web:x\"]",
        ),
        (
            permission(
                json!({ "action": "use", "duty": { "action": "delete", "constraint": atom("delayPeriod", "eq", json!("P30D")) } }),
            ),
            "@after(\"delete_within(P30D)\")",
        ),
        (
            permission(json!({ "action": "use", "duty": [{ "action": "odrl:obtainConsent" }] })),
            "@before(\"consent(obtainConsent)\")",
        ),
        (
            json!({ "prohibition": [{ "action": "distribute" }] }),
            "forbid (principal, action == Action::\"distribute\", resource);",
        ),
    ] {
        let text = from_odrl(&odrl).unwrap_or_else(|error| panic!("{error}\n{odrl}"));
        assert!(text.contains(cedar), "{text}\n  lacks {cedar}");
        compile(&text);
    }
}

#[test]
fn use_is_everything_but_selling() {
    let text = from_odrl(&permission(json!({ "action": "use" }))).unwrap();
    assert!(
        text.contains("Action::\"discover\"") && text.contains("Action::\"view\"") && !text.contains("\"sell\""),
        "{text}"
    );
    let odrl = to_odrl(&compile(&text)).unwrap();
    assert_eq!(odrl, json!({ "permission": [{ "action": "use" }] }));
}

#[test]
fn text_stays_text_whatever_is_in_it() {
    let hostile = "x\" || true }; permit(principal, action, resource); //\n\\";
    let text = from_odrl(&constrained(atom("purpose", "eq", json!(hostile)))).unwrap();
    let odrl = to_odrl(&compile(&text)).unwrap();
    assert_eq!(odrl["permission"].as_array().unwrap().len(), 1);
    assert_eq!(odrl["permission"][0]["constraint"][0]["rightOperand"], hostile);
    // names stand in comments only by their place
    let named = permission(json!({ "@id": "x\npermit (principal, action, resource);", "action": "read" }));
    assert!(!from_odrl(&named).unwrap().contains("permit (principal, action, resource)"));
}

#[test]
fn what_has_no_form_is_refused_by_policy_and_clause() {
    for (clause, words) in [
        ("context.purpose like \"r*\"", "like"),
        ("context.count * 2 < 3", "context.count * 2"),
        ("context.count < context.weekday", "a fact or an attribute compared with a literal"),
        ("context.now.toTime() < duration(\"1h\")", "toTime"),
        ("context.now < datetime(\"2026-01-01\").offset(duration(\"1d\"))", "offset"),
        ("if context.count < 1 then true else false", "if"),
        ("context has purpose", "has"),
        ("context.dataField == [\"a\"]", "=="),
        ("context.dataField.isEmpty()", "isEmpty"),
        ("!(context.networkAddress.isInRange(ip(\"10.0.0.0/8\")))", "no operator for its opposite"),
        ("![\"a\"].containsAll(context.dataField)", "no operator for its opposite"),
        ("context.count < 9223372036854775807", "context.count"),
        ("context.timeWindow < duration(\"-1h\")", "timeWindow"),
    ] {
        for effect in ["permit", "forbid"] {
            let text = format!(
                "@id(\"fine\") permit (principal, action, resource); @id(\"odd\") {effect} (principal, action, resource) when {{ {clause} }};"
            );
            let error = to_odrl(&compile(&text)).unwrap_err();
            let refusal = Refusal::from(error.clone());
            assert!(refusal.is("odrl-not-expressible"), "{refusal}");
            let error = error.to_string();
            assert!(error.contains("policy `odd`") && error.contains(words), "{clause}: {error}");
        }
    }
}

#[test]
fn duties_that_a_reader_could_pick_between_are_refused() {
    let error = to_odrl(&compile(
        r#"@id("a") permit (principal, action, resource);
           @id("b") @during("hash(id)") permit (principal, action == Action::"release", resource);"#,
    ))
    .unwrap_err();
    assert!(error.to_string().contains("policy `a` and policy `b` may both permit `release`"), "{error}");
    let odrl = json!({ "permission": [
        { "action": "use" }, { "action": "odrl:read", "duty": [{ "action": "https://w3id.org/counterseal/ns#second_factor" }] },
    ]});
    let error = from_odrl(&odrl).unwrap_err();
    assert!(error.to_string().contains("`/permission/0` and `/permission/1`"), "{error}");
    assert!(Refusal::from(error).is("odrl-duties-differ"));
}

#[test]
fn the_deepest_policy_is_said_from_a_small_stack() {
    let deep = format!("{}context.purpose == \"x\"{}", "!(".repeat(30), ")".repeat(30));
    let long = vec!["context.count < 3"; 100].join(" && ");
    for condition in [deep, long] {
        let slice = compile(&format!("@id(\"x\") permit (principal, action, resource) when {{ {condition} }};"));
        std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(256 << 10);
            small.spawn_scoped(scope, || assert!(to_odrl(&slice).is_ok())).unwrap().join().unwrap();
        });
    }
}
