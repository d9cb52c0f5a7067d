//! Named formats in rules.

use std::any::Any;

use ::cel::{
    Env,
    common::{
        types::{CelList, CelOptional, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use super::{super::super::formats, Answer, Args, Registered, fail, parse_url};
use crate::base::names;

opaque!(FormatVal, &'static str, FORMAT, "kubernetes.NamedFormat");

/// The formats by name; each is a function, too.
const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// What is wrong with a text in a format.
fn complaints(format: &str, text: &str) -> Vec<String> {
    let by_schema = |name: &str, said: &str| {
        if formats::check(name, text) == Some(false) { vec![said.to_owned()] } else { Vec::new() }
    };
    match format {
        "dns1123Label" => names::dns1123_label(text).into_iter().collect(),
        "dns1123Subdomain" => names::dns1123_subdomain(text).into_iter().collect(),
        "dns1035Label" => names::dns1035_label(text).into_iter().collect(),
        "qualifiedName" => names::qualified_name(text).into_iter().collect(),
        "dns1123LabelPrefix" => names::name_is_label(text, true).into_iter().collect(),
        "dns1123SubdomainPrefix" => names::name_is_subdomain(text, true).into_iter().collect(),
        "dns1035LabelPrefix" => names::name_is_1035_label(text, true).into_iter().collect(),
        "labelValue" => names::label_value(text).into_iter().collect(),
        "uri" => parse_url(text).err().into_iter().collect(),
        "uuid" => by_schema("uuid", "does not match the UUID format"),
        "byte" => by_schema("byte", "invalid base64"),
        "date" => by_schema("date", "invalid date"),
        "datetime" => by_schema("date-time", "invalid datetime"),
        _ => Vec::new(),
    }
}

fn named<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let Some(name) = args[0].downcast_ref::<CelString<'_>>() else { return fail("format.named", "no such overload") };
    let found = FORMATS.iter().find(|known| **known == name.inner());
    let format = found.map(|name| Box::new(FormatVal(name)) as Box<dyn Val + 'v>);
    Ok(CowVal::owned(CelOptional::from(format)))
}

/// The complaints, as an optional: there are none where the text is well formed.
fn validate<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (Some(format), Some(text)) = (args[0].downcast_ref::<FormatVal>(), args[1].downcast_ref::<CelString<'_>>())
    else {
        return fail("validate", "no such overload");
    };
    let complaints = complaints(format.0, text.inner());
    if complaints.is_empty() {
        return Ok(CowVal::owned(CelOptional::none()));
    }
    let texts: Vec<Box<dyn Val + 'v>> =
        complaints.into_iter().map(|text| Box::new(CelString::from(text)) as Box<dyn Val + 'v>).collect();
    Ok(CowVal::owned(CelOptional::of(Box::new(CelList::from(texts)))))
}

macro_rules! format_functions {
    ($env:ident, $($index:literal)*) => {
        $(
            let name = format!("format.{}", FORMATS[$index]);
            $env.add_overload(&name, &name, vec![], |_| Ok(CowVal::owned(FormatVal(FORMATS[$index]))))?;
        )*
    };
}

pub(super) fn functions(env: &mut Env) -> Registered {
    format_functions!(env, 0 1 2 3 4 5 6 7 8 9 10 11 12);
    env.add_overload("format.named", "format_named", vec![STRING_TYPE], named)?;
    env.add_member_overload("validate", "format_validate", FORMAT.to_owned(), vec![STRING_TYPE], validate)
}
