//! What tells a run from what is asked for now: such cases stand in one run only where somebody says so.

use std::collections::BTreeSet;

use reports::Manifest;
use serde_json::Value;

/// The differences, a line each: `low_mem_level: [0, 1] then, [0, 1, 2] now`. What two runs were made on is no part of a definition, and comes first.
pub(crate) fn differences(then: &Manifest, now: &Manifest) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut differs = |what: &str, a: &str, b: &str| {
        if a != b {
            found.push(format!("{what}: {a} then, {b} now"));
        }
    };
    differs("version", &then.version, &now.version);
    let limit = |manifest: &Manifest| manifest.memory_limit_bytes.map_or_else(|| "none".to_owned(), |bytes| format!("{bytes} bytes"));
    differs("GPU", &gpu(then), &gpu(now));
    differs("limit of the GPU's memory", &limit(then), &limit(now));
    // What this machine has available is another figure each time.
    if now.device == engine_protocol::Device::Virtual {
        let ram = |manifest: &Manifest| manifest.ram_bytes.map_or_else(|| "no limit".to_owned(), |bytes| format!("{bytes} bytes"));
        differs("RAM", &ram(then), &ram(now));
    }
    if let Some(disk) = &then.disk {
        differs("disk", disk, now.disk.as_deref().unwrap_or("none"));
    }
    let profiles =
        |manifest: &Manifest| manifest.gpu.iter().chain(manifest.gpus.iter().map(|gpu| &gpu.profile)).cloned().collect::<Vec<_>>();
    if gpu(then) == gpu(now) && profiles(then) != profiles(now) {
        found.push(format!("GPU: the profile of {} has other figures now", gpu(now)));
    }
    for old in &then.models {
        if now.models.iter().any(|new| new.name == old.name && new != old) {
            found.push(format!("weights: the model definition {} is another one now", old.name));
        }
    }
    found.extend(of_definition(then, now));
    found
}

fn gpu(manifest: &Manifest) -> String {
    if !manifest.gpus.is_empty() {
        let names = manifest.gpus.iter().map(|gpu| format!("{} ({}, {} bytes)", gpu.asked, gpu.profile.name, gpu.capacity_bytes));
        return names.collect::<Vec<_>>().join(", ");
    }
    manifest.gpu.as_ref().map_or_else(|| "one without a profile".to_owned(), |gpu| gpu.name.clone())
}

/// What differs in what the cases are.
fn of_definition(then: &Manifest, now: &Manifest) -> Vec<String> {
    if then.values.is_empty() || now.values.is_empty() {
        // An older version kept the text alone.
        let is_other = then.definition != now.definition;
        return is_other.then(|| "definition: the text of the sweep is another one now".to_owned()).into_iter().collect();
    }
    let keys: BTreeSet<&String> = then.values.keys().chain(now.values.keys()).collect();
    let of = |key: &String| {
        let [then, now] = [then, now].map(|manifest| manifest.values.get(key).map_or("nothing".to_owned(), |values| list(values)));
        (then != now).then(|| format!("{key}: {then} then, {now} now"))
    };
    let found: Vec<String> = keys.into_iter().filter_map(of).collect();
    let same_cases = || then.cases.iter().collect::<BTreeSet<_>>() == now.cases.iter().collect();
    // A run that was mixed before has cases of both.
    if found.is_empty() && then.mixed.is_empty() && !same_cases() {
        return vec![format!("cases: {} then, {} now, or others", then.cases.len(), now.cases.len())];
    }
    found
}

/// `5`, or of several values `[0, 1, 2]`.
fn list(values: &[Value]) -> String {
    let words: Vec<String> = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    match words.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bare_record::bare_manifest;

    fn manifest(levels: &[u8], version: &str) -> Manifest {
        let values = [("low_mem_level".to_owned(), levels.iter().map(|level| json!(level)).collect())].into();
        let names: Vec<String> = levels.iter().map(|level| format!("level{level}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Manifest { values, version: version.into(), ..bare_manifest(&names) }
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let (then, now) = (manifest(&[0, 1], "0.1.0"), manifest(&[0, 1, 2], "0.2.0"));
        assert_eq!(differences(&then, &now), ["version: 0.1.0 then, 0.2.0 now", "low_mem_level: [0, 1] then, [0, 1, 2] now"]);
        assert_eq!(differences(&now, &now), [""; 0]);
    }

    #[test]
    fn an_older_run_is_known_by_its_text_and_cases_by_their_names() {
        let then = Manifest { values: Default::default(), definition: "frames: 9\n".into(), ..manifest(&[0], "1") };
        assert_eq!(differences(&then, &manifest(&[0], "1")).len(), 1);
        let other = Manifest { cases: vec!["a".into()], ..manifest(&[0], "1") };
        assert_eq!(differences(&other, &manifest(&[0], "1")), ["cases: 1 then, 1 now, or others"]);
        let mixed = Manifest { mixed: vec!["x".into()], ..other };
        assert_eq!(differences(&mixed, &manifest(&[0], "1")), [""; 0]);
    }
}
