use std::sync::Arc;

use rstest::rstest;
use serde_json::{Value, json};

use super::{Answer, Bindings, Scope, Wanted, budget, validate};
use crate::schema::Schema;

fn compile(spec: &Value) -> Result<Arc<Schema>, Vec<String>> {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    Schema::structural(&schema, "s").map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn errors(spec: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let schema = compile(spec).expect("the schema is structural");
    let object = |spec: Value| json!({"apiVersion": "g/v1", "kind": "Cel", "metadata": {"name": "c"}, "spec": spec});
    let errors = schema.validate(&object(new), old.map(object).as_ref());
    errors.iter().map(ToString::to_string).collect()
}

fn text(rule: &str) -> Value {
    json!({"type": "string", "maxLength": 80, "x-kubernetes-validations": [{"rule": rule}]})
}

#[rstest]
#[case(text("self.lowerAscii() == self"), json!("abc"), json!("aBc"))]
#[case(text("self == 'ok' ? true : (self.size() > 3 && self != 'none')"), json!("yess"), json!("none"))]
#[case(text("isCIDR(self) && cidr(self).containsIP('10.1.2.3')"), json!("10.1.2.3/32"), json!("11.0.0.0/8"))]
#[case(text("self.matches('^[a-c]+[0-9]{2}$')"), json!("ab12"), json!("abc123"))]
#[case(text("isSemver(self) && semver(self).isGreaterThan(semver('1.2.3'))"), json!("2.0.0-rc.1"), json!("1.2.3"))]
#[case(text("isIP(self) && ip(self).family() == 4"), json!("10.0.0.1"), json!("::1"))]
#[case(text("isURL(self) && url(self).getHostname() == 'example.com' && url(self).getPort() == '8080'"),
    json!("http://example.com:8080/x"), json!("http://example.com"))]
#[case(text("self.find('[0-9]+') == '42' && self.findAll('[0-9]').size() == 2"), json!("a42b"), json!("4x2"))]
#[case(text("self.contains('x') || self.indexOf('y') == 1"), json!("ay"), json!("ya"))]
#[case(text("'%s-%d'.format([self, 3]) == 'a-3'"), json!("a"), json!("b"))]
#[case(text("quantity(self).isLessThan(quantity('10Gi'))"), json!("9Gi"), json!("11Gi"))]
#[case(text("!format.dns1123Label().validate(self).hasValue()"), json!("a-b"), json!("A_b"))]
#[case(text("sets.contains(self.split(','), ['a', 'b'])"), json!("b,c,a"), json!("a,c"))]
#[case(text("self.split(',').map(x, int(x)).sum() == 6"), json!("1,2,3"), json!("1,2"))]
#[case(text("ip(self).isLoopback() && string(ip(self)) == self"), json!("127.0.0.1"), json!("10.0.0.1"))]
#[case(text("timestamp(self).getFullYear() == 2024"), json!("2024-01-01T00:00:00Z"), json!("2023-01-01T00:00:00Z"))]
#[case(text("optional.of(self).optMap(x, x.size() > 2).orValue(false)"), json!("abc"), json!("ab"))]
#[case(text("quantity(self).add(quantity('1Gi')).compareTo(quantity('2Gi')) == 0 && quantity(self).isInteger()"),
    json!("1Gi"), json!("2Gi"))]
#[case(text("duration(self) > duration('1h')"), json!("61m"), json!("59m"))]
#[case(text("quantity(self).asApproximateFloat() == 1.5"), json!("1500m"), json!("1"))]
#[case(text("self.split(',').first().value() == 'a' && self.split(',').last().value() == 'b'"), json!("a,c,b"), json!("b,a"))]
#[case(text("[self == 'x' ? optional.of(1) : optional.none(), optional.of(2)].unwrapOpt() == [1, 2]"), json!("x"), json!("y"))]
#[case(text("self.split(',').all(i, v, v == string(i))"), json!("0,1"), json!("1,0"))]
#[case(text("self.split(',').exists(i, v, i == 1 && v == 'b')"), json!("a,b"), json!("b,a"))]
#[case(text("self.split(',').existsOne(i, v, v == 'b')"), json!("a,b"), json!("b,b"))]
#[case(text("self.split(',').transformList(i, v, i > 0, v) == ['b']"), json!("a,b"), json!("b,a"))]
#[case(text("self.split(',').transformMap(i, v, v) == {0: 'a', 1: 'b'}"), json!("a,b"), json!("a"))]
#[case(text("self.split(',').transformMapEntry(i, v, {v: i})['b'] == 1"), json!("a,b"), json!("b,a"))]
#[case(text("{'b': 2, 'a': 1}.transformList(k, v, k) == ['a', self]"), json!("b"), json!("a"))]
#[case(text("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, {'x': 1}.all(j, w, v > w)) == {'b': self == 'x'}"), json!("x"), json!("y"))]
#[case(json!({"type": "integer", "x-kubernetes-validations": [{"rule": "string(self).size() == 3"}]}), json!(-12), json!(12))]
#[case(json!({"type": "number", "x-kubernetes-validations": [{"rule": "self > 0.5 && self <= 1.5"}]}), json!(1), json!(2))]
#[case(json!({"x-kubernetes-int-or-string": true, "x-kubernetes-validations": [{"rule": "type(self) == int ? self > 5 : self == 'five'"}]}),
    json!("five"), json!(5))]
fn rules_decide_over_scalars(#[case] spec: Value, #[case] good: Value, #[case] bad: Value) {
    assert_eq!(errors(&spec, good, None), [""; 0]);
    let rule = spec["x-kubernetes-validations"][0]["rule"].as_str().unwrap_or_default();
    assert_eq!(errors(&spec, bad.clone(), None), [format!("spec: Invalid value: {bad}: failed rule: {rule}")]);
}

#[rstest]
#[case(json!({"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 9},
    "x-kubernetes-validations": [{"rule": "self.isSorted() && self.exists_one(x, x == 'a')", "message": "m"}]}),
    json!(["a", "b"]), json!(["b", "a"]))]
#[case(json!({"type": "array", "maxItems": 10, "items": {"type": "integer"},
    "x-kubernetes-validations": [{"rule": "self.filter(x, x > 2).map(x, x * 2).size() == 2", "message": "m"}]}), json!([3, 4]), json!([1, 3]))]
#[case(json!({"type": "array", "maxItems": 10, "items": {"type": "string"},
    "x-kubernetes-validations": [{"rule": "self.indexOf('b') == 1 && self.lastIndexOf('b') == 2", "message": "m"}]}),
    json!(["a", "b", "b"]), json!(["b"]))]
#[case(json!({"type": "object", "additionalProperties": {"type": "integer"},
    "x-kubernetes-validations": [{"rule": "'a' in self && (!('b' in self) || self.b > self.a)", "message": "m"}]}),
    json!({"a": 1}), json!({"a": 1, "b": 0}))]
#[case(json!({"type": "object", "additionalProperties": {"type": "integer"},
    "x-kubernetes-validations": [{"rule": "self.all(k, k.startsWith('a') && self[k] > 0)", "message": "m"}]}),
    json!({"a": 1}), json!({"ab": 0}))]
#[case(json!({"type": "object", "properties": {"f": {"type": "integer"}},
    "x-kubernetes-validations": [{"rule": "self.?f.orValue(5) > 3", "message": "m"}]}), json!({}), json!({"f": 1}))]
#[case(json!({"type": "object", "properties": {"my_field": {"type": "string"}, "a-b": {"type": "integer"}, "namespace": {"type": "string"}},
    "x-kubernetes-validations": [{"rule": "(!has(self.my_field) || self.my_field == 'x') && (!has(self.a__dash__b) || self.a__dash__b > 0) && (!has(self.__namespace__) || self.__namespace__ != 'kube')", "message": "m"}]}),
    json!({"a-b": 1, "my_field": "x"}), json!({"namespace": "kube"}))]
#[case(json!({"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
    "x-kubernetes-validations": [{"rule": "!has(self.min) || !has(self.max) || self.min <= self.max", "messageExpression": "'m'"}]}),
    json!({"min": 1, "max": 2}), json!({"min": 3, "max": 2}))]
fn rules_decide_over_lists_and_maps(#[case] spec: Value, #[case] good: Value, #[case] bad: Value) {
    assert_eq!(errors(&spec, good, None), [""; 0]);
    assert_eq!(errors(&spec, bad, None), ["spec: Invalid value: m"]);
}

#[test]
fn a_rule_that_fails_to_run_tells_why() {
    let spec = json!({"type": "string", "maxLength": 80,
        "x-kubernetes-validations": [{"rule": "duration(self) > duration('1h')", "messageExpression": "'refused'"}]});
    let text = "spec: Invalid value: \"string\": type conversion error from 'string' to 'google.protobuf.Duration' evaluating \
                rule: duration(self) > duration('1h')";
    assert_eq!(errors(&spec, json!("x"), None), [text]);
}

#[test]
fn what_may_not_change_is_checked_on_updates_only() {
    let rule = "has(self.v) == has(oldSelf.v) && (!has(self.v) || self.v == oldSelf.v)";
    let spec = json!({"type": "object", "properties": {"v": {"type": "array", "items": {"type": "object", "properties":
        {"a": {"type": "string"}}}}, "n": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": rule, "message": "v is immutable"}]});
    let with = |a: &str, n: i64| json!({"v": [{"a": a}], "n": n});
    assert_eq!(errors(&spec, with("x", 1), None), [""; 0]);
    assert_eq!(errors(&spec, with("x", 2), Some(with("x", 1))), [""; 0]);
    assert_eq!(errors(&spec, with("y", 1), Some(with("x", 1))), ["spec: Invalid value: v is immutable"]);
    assert_eq!(errors(&spec, json!({}), Some(with("x", 1))), ["spec: Invalid value: v is immutable"]);
}

#[test]
fn items_of_a_map_list_know_their_old_selves() {
    let spec = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"},
            "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may not shrink"}]}}}});
    let old = json!([{"k": "a", "v": 1}, {"k": "b", "v": 5}]);
    assert_eq!(errors(&spec, json!([{"k": "b", "v": 5}, {"k": "c", "v": 0}]), Some(old.clone())), [""; 0]);
    let text = "spec[0].v: Invalid value: 4: may not shrink";
    assert_eq!(errors(&spec, json!([{"k": "b", "v": 4}]), Some(old)), [text]);
}

#[test]
fn an_optional_old_self_is_there_on_create() {
    let spec = json!({"type": "integer", "x-kubernetes-validations":
        [{"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": true, "message": "starts at 1"}]});
    assert_eq!(errors(&spec, json!(1), None), [""; 0]);
    assert_eq!(errors(&spec, json!(2), None), ["spec: Invalid value: 2: starts at 1"]);
    assert_eq!(errors(&spec, json!(2), Some(json!(1))), [""; 0]);
}

#[test]
fn an_unchanged_value_keeps_breaking_its_rule() {
    let spec = json!({"type": "object", "properties": {"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]},
        "b": {"type": "integer"}}});
    assert_eq!(errors(&spec, json!({"a": 1, "b": 2}), Some(json!({"a": 1, "b": 1}))), [""; 0]);
    assert_eq!(
        errors(&spec, json!({"a": 2}), Some(json!({"a": 1}))),
        ["spec.a: Invalid value: 2: failed rule: self > 5"]
    );
}

#[test]
fn an_invalid_object_runs_no_rules() {
    let spec = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.a > 1"}]});
    let texts = errors(&spec, json!({}), None);
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0], "spec.a: Required value");
    assert!(texts[1].starts_with("<nil>: Invalid value: null: some validation rules were not checked"));
}

#[test]
fn reason_and_field_path_shape_the_error() {
    let spec = json!({"type": "object", "properties": {"max": {"type": "integer"}}, "x-kubernetes-validations": [
        {"rule": "self.max < 100", "messageExpression": "'max was ' + (self.max > 150 ? 'big' : 'small')", "fieldPath": ".max"},
        {"rule": "self.max < 10", "message": "m", "reason": "FieldValueForbidden"}]});
    assert_eq!(
        errors(&spec, json!({"max": 200}), None),
        ["spec.max: Invalid value: max was big", "spec: Forbidden: m"]
    );
}

fn shown(rule: &str) -> String {
    let rule = rule.replace('>', "\\u003e");
    format!(
        "{{\"Rule\":\"{rule}\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}"
    )
}

#[rstest]
#[case(json!({"type": "object"}), "self.nope > 1",
    "compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^")]
#[case(json!({"type": "string", "format": "date"}), "self == 'a'",
    "compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(timestamp, string)'\n | self == 'a'\n | .....^")]
#[case(json!({"type": "number"}), "self % 2.0 == 0.0",
    "compilation failed: ERROR: <input>:1:6: found no matching overload for '_%_' applied to '(double, double)'\n | self % 2.0 == 0.0\n | .....^")]
#[case(json!({"type": "string", "maxLength": 9}), "self.matches('(')",
    "compilation failed: ERROR: <input>:1:14: invalid matches argument\n | self.matches('(')\n | .............^")]
#[case(json!({"type": "string"}), "self in ['a', 1]",
    "compilation failed: ERROR: <input>:1:15: expected type 'string' but found 'int'\n | self in ['a', 1]\n | ..............^")]
#[case(json!({"type": "string"}), "self || true",
    "compilation failed: ERROR: <input>:1:1: expected type 'bool' but found 'string'\n | self || true\n | ^")]
#[case(json!({"type": "string"}), "self.size()", "cel expression must evaluate to a bool")]
#[case(json!({"type": "string"}), "self.reverse() == self",
    "compilation failed: ERROR: <input>:1:13: found no matching overload for 'reverse' applied to 'string.()'\n | self.reverse() == self\n | ............^")]
#[case(json!({"type": "string"}), "base64.decode(self) == b'hi'",
    "compilation failed: ERROR: <input>:1:1: undeclared reference to 'base64' (in container '')\n | base64.decode(self) == b'hi'\n | ^\nERROR: <input>:1:14: undeclared reference to 'decode' (in container '')\n | base64.decode(self) == b'hi'\n | .............^")]
#[case(json!({"type": "string"}), "self.",
    "compilation failed: ERROR: <input>:1:6: Syntax error: no viable alternative at input '.'\n | self.\n | .....^")]
#[case(json!({"type": "string"}), "[self].transformList(i, 'x', i) == []",
    "compilation failed: ERROR: <input>:1:25: argument must be a simple name\n | [self].transformList(i, 'x', i) == []\n | ........................^")]
#[case(json!({"type": "string"}), "{'a': 1}.transformMap(k, v, v + self) == {}",
    "compilation failed: ERROR: <input>:1:31: found no matching overload for '_+_' applied to '(int, string)'\n | {'a': 1}.transformMap(k, v, v + self) == {}\n | ..............................^")]
#[case(json!({"type": "string"}), "Object{} == self",
    "compilation failed: ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')\n | Object{} == self\n | ......^")]
#[case(json!({"type": "string"}), "authorizer.path(self).check('get').allowed()",
    "compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')\n | authorizer.path(self).check('get').allowed()\n | ^")]
#[case(json!({"type": "integer"}), "self == 'a'",
    "compilation failed: ERROR: <input>:1:6: found no matching overload for '_==_' applied to '(int, string)'\n | self == 'a'\n | .....^")]
fn rules_that_cannot_work_are_refused(#[case] mut spec: Value, #[case] rule: &str, #[case] detail: &str) {
    spec["x-kubernetes-validations"] = json!([{"rule": rule}]);
    let field = "s.properties[spec].x-kubernetes-validations[0].rule";
    let errors = compile(&spec).expect_err("the rule is refused");
    assert_eq!(errors, [format!("{field}: Invalid value: {}: {detail}", shown(rule))]);
}

const DEAR: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                    strings are declared)";

#[rstest]
#[case(text("self.matches('a*b*')"), None)]
#[case(json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.contains('abc')"}]}), None)]
#[case(json!({"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 10},
    "x-kubernetes-validations": [{"rule": "self.all(x, self.exists_one(y, x == y))"}]}), None)]
#[case(json!({"type": "array", "maxItems": 1100, "items": {"type": "string", "maxLength": 10},
    "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]}), Some("1.089550x"))]
#[case(json!({"type": "array", "items": {"type": "string"},
    "x-kubernetes-validations": [{"rule": "self.all(x, x == 'a')"}]}), None)]
fn a_rule_is_refused_for_what_it_may_cost(#[case] spec: Value, #[case] factor: Option<&str>) {
    let refused = compile(&spec).err().map(|errors| errors.join("; "));
    let expected = factor.map(|factor| {
        format!(
            "s.properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor \
             of {factor} {DEAR}"
        )
    });
    assert_eq!(refused, expected);
}

#[test]
fn rules_together_have_a_limit_of_their_own() {
    let rule = json!([{"rule": "self.matches('a*b*')"}]);
    let items = json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": rule}});
    let errors = compile(&json!({"type": "array", "items": items})).unwrap_err();
    let field = "s.properties[spec].items.items.x-kubernetes-validations[0].rule: Forbidden";
    assert_eq!(errors.len(), 3);
    assert!(errors[0].starts_with(&format!("{field}: estimated rule cost exceeds budget by factor of more than 100x")));
    assert!(errors[1].starts_with(&format!("{field}: contributed to estimated rule cost total")));
    assert!(errors[2].starts_with("s: Forbidden: x-kubernetes-validations estimated rule cost total for entire"));
}

#[test]
fn the_old_value_of_a_list_item_is_not_to_be_had() {
    let item = json!({"type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]});
    let errors = compile(&json!({"type": "array", "maxItems": 5, "items": item})).unwrap_err();
    let detail = "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]";
    let field = "s.properties[spec].items.x-kubernetes-validations[0].rule";
    assert_eq!(errors, [format!("{field}: Invalid value: \"self == oldSelf\": {detail}")]);
}

#[rstest]
#[case::too_dear_at_once(
    "self.a.all(x, self.a.all(y, self.a.all(z, x + y + z >= 0)))",
    110,
    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit \
     for rule: self.a.all(x, self.a.all(y, self.a.all(z, x + y + z >= 0)))"
)]
fn a_rule_that_costs_too_much_is_stopped(#[case] rule: &str, #[case] items: usize, #[case] said: &str) {
    // the bound keeps the estimate low: nobody checks it here
    let members = json!({"a": {"type": "array", "maxItems": 3, "items": {"type": "integer"}}});
    let schema = json!({"type": "object", "properties": members, "x-kubernetes-validations": [{"rule": rule}]});
    let schema = Schema::structural(&schema, "").unwrap();
    let errors = validate(&schema.root, &json!({"a": vec![1; items]}), None);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().ends_with(said), "{}", errors[0]);
    assert!(validate(&schema.root, &json!({"a": [1, 2, 3]}), None).is_empty());
}

#[test]
fn expressions_of_admission_share_what_they_may_cost() {
    let numbers = json!((0..1000).collect::<Vec<_>>());
    let bindings = Bindings::new(&[("object", &numbers)]);
    let dear = "object.map(x, x + 1).size() + object.map(x, object[0] + x).size() > 0 && object.all(x, object[x] == x)";
    assert_eq!(bindings.evaluate(dear), Ok(Answer::Bool(true)));
    let refused = bindings.evaluate("object.all(x, object.all(y, x + y >= 0))").unwrap_err();
    assert!(refused.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"), "{refused}");
    let last = (0..2000).find_map(|_| bindings.evaluate(dear).err()).expect("the budget is never spent");
    assert!(last.contains("cost"), "{last}");
    assert_eq!(bindings.evaluate("true"), Err(budget::SPENT.into()));
}

#[test]
fn texts_do_not_grow_without_bound() {
    let bindings = Bindings::new(&[]);
    let grow = format!("'aaaaaaaaaa'{}.size() > 0", ".replace('a', 'aaaaaaaaaa')".repeat(9));
    assert!(bindings.evaluate(&grow).unwrap_err().contains("actual cost limit exceeded"));
}

#[rstest]
#[case(&format!("1{} == 1", " + 1".repeat(400)))]
#[case(&format!("{}true{}", "(".repeat(400), ")".repeat(400)))]
fn what_nests_too_deeply_is_refused(#[case] source: &str) {
    let why = Scope::new(false).check(source, Wanted::Bool).unwrap_err();
    assert!(why.contains("recursion"), "{why}");
}

#[test]
fn many_conditions_beside_each_other_are_not_deep() {
    let source = vec!["1 < 2"; 400].join(" && ");
    assert_eq!(Scope::new(false).check(&source, Wanted::Bool), Ok(()));
    assert_eq!(Bindings::new(&[]).evaluate(&source), Ok(Answer::Bool(true)));
}
