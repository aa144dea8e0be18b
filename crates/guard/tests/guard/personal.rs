//! Personal data and secrets: what is found, what is not, and what a mask leaves.

use guard::{Action, Direction, Guard, Policy};

fn masked(text: &str) -> String {
    let mut policy = Policy::default();
    policy.personal.input = Action::Mask;
    let report = Guard::new(&policy).unwrap().check(text, Direction::In);
    report.text.unwrap_or_else(|| text.to_owned())
}

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(masked(text), want);
}

#[test]
fn found() {
    for (text, want) in [
        ("mail ada.l+x@mail.example.co.uk now", "mail [email] now"),
        ("邮箱：zhang@example.cn，谢谢", "邮箱：[email]，谢谢"),
        ("card 4111 1111 1111 1111, exp", "card [card], exp"),
        ("4111-1111-1111-1111", "[card]"),
        ("３７８２８２２４６３１０００５", "[card]"),
        ("pay 6212142000000000012 now", "pay [card] now"),
        ("two: 4111111111111111 5555555555554444", "two: [card] [card]"),
        ("IBAN DE89 3704 0044 0532 0130 00 bitte", "IBAN [iban] bitte"),
        ("GB29NWBK60161331926819", "[iban]"),
        ("身份证11010519491231002X。", "身份证[cn_id]。"),
        ("SSN 078-05-1121", "SSN [us_ssn]"),
        ("my social security number is 536221234.", "my social security number is [us_ssn]."),
        ("CPF 529.982.247-25", "CPF [br_cpf]"),
        ("NIR 2 55 08 14 168 025 38", "NIR [fr_nir]"),
        ("DNI 12345678Z, NIE X1234567L", "DNI [es_dni], NIE [es_dni]"),
        ("RSSMRA85T10A562S", "[it_cf]"),
        ("NRIC S1234567D", "NRIC [sg_nric]"),
        ("HKID A123456(3)", "HKID [hk_id]"),
        ("台湾 A123456789", "台湾 [tw_id]"),
        ("NINO QQ 12 34 56 C AB 12 34 56 C", "NINO QQ 12 34 56 C [uk_nino]"),
        ("PESEL: 44051401359", "PESEL: [pl_pesel]"),
        ("手机13812345678和+86 139 1234 5678", "手机[phone]和[phone]"),
        ("call (415) 555-2671 or 415-555-2671", "call [phone] or [phone]"),
        ("+44 20 7946 0958", "[phone]"),
        ("010-62345678", "[phone]"),
        ("key sk-proj-Abc123def456Ghi789jkl012 ok", "key [api_key] ok"),
        ("AKIAIOSFODNN7EXAMPLE", "[api_key]"),
        ("tsk-0123456789abcdefXYZ_-", "[api_key]"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "[api_key]"),
        (
            "x\n-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nMIIE+/==\n-----END RSA PRIVATE KEY-----\ny",
            "x\n[private_key]\ny",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIEv", "[private_key]"),
        ("a\u{200b}da@exa\u{200b}mple.org", "[email]"),
    ] {
        check(text, want);
    }
}

#[test]
fn not_found() {
    for text in [
        "4111 1111 1111 1112",
        "1234567890123456",
        "pi is 3.14159265358979323846",
        "550e8400-e29b-41d4-a716-446655440000",
        "order 0000000000000000",
        "2026-11-26 05:12:44",
        "1700000000000",
        "DE88370400440532013000",
        "110105194912310021",
        "000-12-3456",
        "536221234",
        "44051401359",
        "@handle and a@b",
        "v1.2.3@latest",
        "sk-learn-is-a-library-for-python",
        "task-0123456789abcdefXYZ",
        "192.168.100.200",
        "$4111111111111111",
        "from 2001 to 2026, 12,000 of 400,000",
        "ISBN 978-3-16-148410-0",
    ] {
        check(text, text);
    }
}

#[test]
fn spans_are_those_of_the_text_as_it_came() {
    let report = Guard::new(&Policy::default()).unwrap().check("号码：１３８１２３４５６７８。", Direction::In);
    assert_eq!(report.action, Action::Monitor);
    assert_eq!(report.text, None);
    assert_eq!((report.verdicts[0].rule.as_str(), report.verdicts[0].span.clone()), ("personal.phone", 9..42));
}
