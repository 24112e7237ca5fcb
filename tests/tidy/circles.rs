//! No circles of modules: whoever reads a file can read what it needs first.
//!
//! The rule, which docs/architecture.md has as an invariant:
//! - A file is a module. It needs another one when its code names something of it, in a `use` or by a path. A name that was re-exported counts for the file that has it.
//! - A front (`mod.rs`, `lib.rs`) does not need its children because it declares them and re-exports their names; what its own code uses of them counts.
//! - Files form no circle. Nor do the files and folders of any one folder, where a folder needs what any file in it needs.
//!
//! Code of unit tests is left out, and so is what stands in attributes and in macros whose arguments are no expressions.

use std::collections::{BTreeMap, BTreeSet};

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, ItemMod, ItemUse, Macro, Token, UseTree, Visibility};

use crate::tree;

/// The crates whose modules form no circle.
const CRATES: &[&str] =
    &["engine", "engine/protocol", "harness", "host-memory", "reports", "untrusted", "virtual-gpu", "virtual-gpu/protocol"];

#[test]
fn no_modules_form_a_circle() {
    let files = tree::files("rs");
    let mut found = String::new();
    for name in CRATES {
        let source = format!("{name}/src/");
        let own: Vec<_> = files.iter().filter_map(|(path, text)| Some((path.strip_prefix(&source)?, text.as_str()))).collect();
        assert!(!own.is_empty(), "{source}: no files");
        for circle in circles(&own) {
            found += &format!("{name}: {circle}\n");
        }
    }
    assert!(found.is_empty(), "modules that need each other: move what both need to a file below them\n{found}");
}

/// A module's place in its crate, from the crate's root.
type Place = Vec<String>;

/// Which place needs which, and by which path for example.
type Needs = BTreeMap<Place, BTreeMap<Place, String>>;

/// The circles of a crate whose files, relative to its `src`, have these texts. Of each level one is given.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let modules = modules(files);
    let needs: Needs = modules.keys().map(|place| (place.clone(), needed_by(place, &modules))).collect();
    let folders: BTreeSet<&[String]> = modules.keys().flat_map(|place| (0..place.len()).map(|length| &place[..length])).collect();
    let of_folders = folders.into_iter().filter_map(|folder| circle(&within(folder, &needs)));
    circle(&needs).into_iter().chain(of_folders).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What the files and folders of `folder` need of each other.
fn within(folder: &[String], needs: &Needs) -> Needs {
    let mut inside = Needs::new();
    let child = |place: &Place| (place.len() > folder.len() && place.starts_with(folder)).then(|| place[..=folder.len()].to_vec());
    for (place, needed) in needs {
        for (other, by) in needed {
            if let (Some(from), Some(to)) = (child(place), child(other))
                && from != to
            {
                inside.entry(from).or_default().entry(to).or_insert_with(|| format!("{by} in {}", shown(place)));
            }
        }
    }
    inside
}

/// A circle in words, where there is one.
fn circle(needs: &Needs) -> Option<String> {
    let (mut done, mut way) = (BTreeSet::new(), Vec::new());
    needs.keys().find_map(|place| walk(place, needs, &mut done, &mut way))
}

fn walk(place: &Place, needs: &Needs, done: &mut BTreeSet<Place>, way: &mut Vec<(Place, String)>) -> Option<String> {
    if let Some(start) = way.iter().position(|(earlier, _)| earlier == place) {
        let steps = way[start..].iter().map(|(from, by)| format!("{} -> ({by}) -> ", shown(from)));
        return Some(steps.collect::<String>() + &shown(place));
    }
    if !done.contains(place) {
        for (next, by) in needs.get(place).into_iter().flatten() {
            way.push((place.clone(), by.clone()));
            let found = walk(next, needs, done, way);
            way.pop();
            if found.is_some() {
                return found;
            }
        }
        done.insert(place.clone());
    }
    None
}

fn shown(place: &Place) -> String {
    if place.is_empty() { "the crate's root".into() } else { place.join("/") }
}

/// What is read of one file.
#[derive(Default)]
struct Module {
    /// Names that it defines.
    defined: BTreeSet<String>,
    /// Names that a `use` brings, each with its path.
    brought: BTreeMap<String, Vec<String>>,
    /// Paths of its `use ..::*`.
    globs: Vec<Vec<String>>,
    /// All paths that it names, and whether that is to re-export them.
    named: Vec<(Vec<String>, bool)>,
}

/// A crate's files as modules. Where there is a library, its `main.rs` is another crate.
fn modules(files: &[(&str, &str)]) -> BTreeMap<Place, Module> {
    let is_library = files.iter().any(|(path, _)| *path == "lib.rs");
    let mut modules = BTreeMap::new();
    for (path, text) in files {
        let mut place: Place = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        match *path {
            "main.rs" if is_library => continue,
            "main.rs" | "lib.rs" => place.clear(),
            _ => drop(place.pop_if(|last| last == "mod")),
        }
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut reader = Reader::default();
        reader.visit_file(&file);
        modules.insert(place, reader.module);
    }
    modules
}

/// Reads a file's names.
#[derive(Default)]
struct Reader {
    module: Module,
    /// Modules within the file that are open: their `super` is the file.
    depth: usize,
}

impl Reader {
    fn name(&mut self, mut path: Vec<String>, is_re_export: bool) {
        let ups = path.iter().take_while(|segment| *segment == "super").count().min(self.depth);
        path.drain(..ups);
        if path.len() > 1 {
            self.module.named.push((path, is_re_export));
        }
    }

    fn bring(&mut self, tree: &UseTree, mut path: Vec<String>, is_re_export: bool) {
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.bring(&step.tree, path, is_re_export);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.bring(tree, path.clone(), is_re_export)),
            UseTree::Glob(_) => {
                self.module.globs.push(path.clone());
                path.push("*".into());
                self.name(path, is_re_export);
            }
            UseTree::Name(name) => {
                if name.ident != "self" {
                    path.push(name.ident.to_string());
                }
                self.bring_as(path.last().cloned().unwrap_or_default(), path, is_re_export);
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    path.push(rename.ident.to_string());
                }
                self.bring_as(rename.rename.to_string(), path, is_re_export);
            }
        }
    }

    fn bring_as(&mut self, name: String, path: Vec<String>, is_re_export: bool) {
        if self.depth == 0 {
            self.module.brought.insert(name, path.clone());
        }
        self.name(path, is_re_export);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let defined = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        self.module.defined.extend(defined.filter(|_| self.depth == 0).map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_of_tests(&item.attrs) {
            self.depth += 1;
            visit::visit_item_mod(self, item);
            self.depth -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_of_tests(&item.attrs) {
            self.bring(&item.tree, Vec::new(), !matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.name(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        if let Ok(arguments) = item.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
        visit::visit_macro(self, item);
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && quoted(attribute).contains("test"))
}

fn quoted(attribute: &Attribute) -> String {
    attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default()
}

/// The modules that `place` needs.
fn needed_by(place: &Place, modules: &BTreeMap<Place, Module>) -> BTreeMap<Place, String> {
    let mut needed = BTreeMap::new();
    for (path, is_re_export) in &modules[place].named {
        let Some(other) = resolve(place, path, modules, 0) else { continue };
        let is_own_child = other.len() > place.len() && other.starts_with(place);
        if other != *place && !(*is_re_export && is_own_child) {
            needed.entry(other).or_insert_with(|| path.join("::"));
        }
    }
    needed
}

/// More re-exports than any name goes through.
const MOST_STEPS: usize = 16;

/// The module that has what `path`, as it stands in `place`, names. Nothing for what is of another crate.
fn resolve(place: &Place, path: &[String], modules: &BTreeMap<Place, Module>, steps: usize) -> Option<Place> {
    let (first, rest) = path.split_first()?;
    let start = match first.as_str() {
        "crate" => Place::new(),
        "self" => place.clone(),
        "super" => place.split_last()?.1.to_vec(),
        _ => return find(place, path, modules, steps),
    };
    if rest.is_empty() { Some(start) } else { find(&start, rest, modules, steps).or(Some(start)) }
}

/// As [`resolve`], of a path that begins with a name of the module `at`.
fn find(at: &Place, path: &[String], modules: &BTreeMap<Place, Module>, steps: usize) -> Option<Place> {
    let (first, rest) = path.split_first()?;
    let module = modules.get(at)?;
    if first == "super" {
        return resolve(at, path, modules, steps);
    }
    let child: Place = at.iter().cloned().chain([first.clone()]).collect();
    if modules.contains_key(&child) {
        return if rest.is_empty() { Some(child) } else { find(&child, rest, modules, steps).or(Some(child)) };
    }
    if module.defined.contains(first) {
        return Some(at.clone());
    }
    if steps == MOST_STEPS {
        return None;
    }
    if let Some(brought) = module.brought.get(first).filter(|brought| brought.len() > 1 || brought[0] != *first) {
        return resolve(at, &[brought, rest].concat(), modules, steps + 1);
    }
    module.globs.iter().find_map(|glob| resolve(at, &[glob, path].concat(), modules, steps + 1))
}

/// Whether a circle is found among these files.
fn has_circle(files: &[(&str, &str)]) -> bool {
    !circles(files).is_empty()
}

#[test]
fn two_files_that_use_each_other_are_a_circle() {
    let root = ("lib.rs", "mod a; mod b;");
    let (a, b) = ("use crate::b::B; struct A;", "fn b() -> super::a::A { super::a::A } struct B;");
    let found = circles(&[root, ("a.rs", a), ("b.rs", b)]);
    assert_eq!(found, ["a -> (crate::b::B in a) -> b -> (super::a::A in b) -> a", "a -> (crate::b::B) -> b -> (super::a::A) -> a"]);
    assert!(!has_circle(&[root, ("a.rs", a), ("b.rs", "struct B;")]));
}

#[test]
fn a_call_in_a_macro_counts() {
    let root = ("lib.rs", "mod a; mod b;");
    assert!(has_circle(&[root, ("a.rs", "use super::b; fn a() { b::b() }"), ("b.rs", "fn b() { assert!(crate::a::a(), \"{}\", 1) }")]));
}

#[test]
fn a_front_that_only_re_exports_is_in_no_circle() {
    let (root, front) = (("lib.rs", "mod f;"), "mod a; mod b; pub use a::A; pub const C: i64 = 1;");
    let files = |b| [root, ("f/mod.rs", front), ("f/a.rs", "use super::C; pub struct A;"), ("f/b.rs", b)];
    assert!(!has_circle(&files("use super::A;")));
    // By way of the front it is `a` that `b` needs, and the other way round.
    let circle = [root, ("f/mod.rs", front), ("f/a.rs", "use super::b::B; pub struct A;"), ("f/b.rs", "use super::A; pub struct B;")];
    assert!(has_circle(&circle));
    // One whose own code uses a child that uses it is in one.
    assert!(has_circle(&[root, ("f/mod.rs", "mod a; use a::A; pub struct F(A);"), ("f/a.rs", "pub struct A; fn a(_: super::F) {}")]));
}

#[test]
fn two_folders_whose_files_need_each_other_are_a_circle() {
    let fronts = [("lib.rs", "mod f; mod g;"), ("f/mod.rs", "mod a; mod b;"), ("g/mod.rs", "mod c;")];
    let files = [("f/a.rs", "use crate::g::c::C;"), ("f/b.rs", "pub struct B;"), ("g/c.rs", "use crate::f::b::B; pub struct C;")];
    assert_eq!(circles(&[&fronts[..], &files].concat()).len(), 1);
}

#[test]
fn what_unit_tests_use_does_not_count() {
    let root = ("lib.rs", "mod a; mod b;");
    let tests = "pub struct B; #[cfg(test)] mod tests { use super::*; use crate::a::A; }";
    assert!(!has_circle(&[root, ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", tests)]));
}
