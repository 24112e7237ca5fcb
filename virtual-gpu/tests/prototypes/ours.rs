//! The functions that the sources export. Most stand in `exports!` and `unsafe_exports!`; families of functions are macros of their own, which are expanded here as far as
//! names and parameters go.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::{Item, ItemFn, ItemMacro, Path as Name, Signature, Token};

use super::class::{Class, Types};
use super::reference::{Prototype, prototype};
use crate::library::root;

/// What is declared of the parameters.
#[derive(Debug, Clone)]
pub(super) enum Parameters {
    All(Vec<Class>),
    /// Those that a family of functions shares, none where nothing is read. In C's calling convention the caller clears up, so those that follow need no declaration.
    First(Vec<Class>),
}

/// An exported function.
#[derive(Debug, Clone)]
pub(super) struct Exported {
    pub(super) parameters: Parameters,
    pub(super) result: Class,
}

/// Pointers, as exported functions take them.
const POINTERS: [&str; 10] = ["Address", "Given", "GivenText", "Handle", "InOut", "Out", "OutText", "StaticText", "Untyped", "Versioned"];
/// Each of the numbers that cuSOLVER's functions go by is one place, whatever its type: see `cusolver.rs`.
const BY_PLACES: [&str; 3] = ["computes", "asks_for_elements", "asks_for_bytes"];

/// What stands in `exports!`.
struct Functions(Vec<ItemFn>);

impl Parse for Functions {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // How they answer, and what has to be before.
        input.parse::<Name>()?;
        if input.parse::<Option<Token![,]>>()?.is_some() {
            input.parse::<Name>()?;
        }
        input.parse::<Token![;]>()?;
        let mut functions = Vec::new();
        while !input.is_empty() {
            functions.push(input.parse()?);
        }
        Ok(Self(functions))
    }
}

/// A macro that stands for a family of functions.
struct Family {
    /// Names of its parameters that are names of functions, by the groups that semicolons make.
    parameters: Vec<Vec<String>>,
    /// Items in which a parameter `name` is `__name`.
    body: Vec<Item>,
}

fn sources(folder: &Path, found: &mut Vec<(String, Vec<Item>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            let text = fs::read_to_string(&path).expect("a source file");
            let items = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).items;
            found.push((path.file_name().expect("a name").to_string_lossy().into_owned(), items));
        }
    }
}

/// All of them, by name.
pub(super) fn exported() -> BTreeMap<String, Exported> {
    let mut files = Vec::new();
    sources(&root().join("virtual-gpu/src"), &mut files);
    let mut types = Types::default();
    files.iter().flat_map(|(_, items)| items).for_each(|item| types.learn(item, &[]));
    POINTERS.iter().for_each(|name| types.add_pointer(name));
    let common = families(files.iter().filter(|(name, _)| name == "exports.rs").flat_map(|(_, items)| items));
    let mut found = BTreeMap::new();
    for (name, items) in files.iter().filter(|(name, _)| name != "exports.rs") {
        let own = families(items);
        let reader = Reader { types: &types, common: &common, own: &own, by_places: name == "cusolver.rs" };
        reader.read(items, &mut found);
    }
    found
}

struct Reader<'a> {
    types: &'a Types,
    common: &'a BTreeMap<String, Family>,
    own: &'a BTreeMap<String, Family>,
    by_places: bool,
}

impl Reader<'_> {
    fn read(&self, items: &[Item], found: &mut BTreeMap<String, Exported>) {
        for item in items {
            match item {
                Item::Fn(function) if function.sig.abi.is_some() && is_exported(function) => self.add(&function.sig, found),
                Item::Macro(called) if called.ident.is_none() => self.called(called, found),
                _ => {}
            }
        }
    }

    fn add(&self, signature: &Signature, found: &mut BTreeMap<String, Exported>) {
        let Prototype { parameters, result } = prototype(signature, self.types);
        found.insert(signature.ident.to_string(), Exported { parameters: Parameters::All(parameters), result });
    }

    fn called(&self, called: &ItemMacro, found: &mut BTreeMap<String, Exported>) {
        let name = called.mac.path.segments.last().expect("a name").ident.to_string();
        let tokens = called.mac.tokens.clone();
        if ["exports", "unsafe_exports"].contains(&name.as_str()) {
            let functions = syn::parse2::<Functions>(tokens).unwrap_or_else(|error| panic!("{name}: {error}"));
            for mut function in functions.0 {
                // The macro gives each its library's status.
                function.sig.output = syn::parse_quote!(-> i32);
                self.add(&function.sig, found);
            }
        } else if self.by_places && BY_PLACES.contains(&name.as_str()) {
            by_places(&name, tokens, found);
        } else if let Some(family) = self.own.get(&name).or_else(|| self.common.get(&name)) {
            let mut templates = BTreeMap::new();
            self.read(&family.body, &mut templates);
            for (parameters, names) in family.parameters.iter().zip(split(tokens)) {
                let names = names.iter().filter(|name| name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_'));
                for (parameter, name) in parameters.iter().cycle().zip(names) {
                    let Some(template) = templates.get(&format!("__{parameter}")) else { panic!("{parameter}: no function") };
                    let (Parameters::All(shared) | Parameters::First(shared)) = template.parameters.clone();
                    found.insert(name.clone(), Exported { parameters: Parameters::First(shared), result: template.result });
                }
            }
        }
    }
}

fn is_exported(function: &ItemFn) -> bool {
    function.attrs.iter().any(|attribute| attribute.path().is_ident("unsafe"))
}

fn families<'a>(items: impl IntoIterator<Item = &'a Item>) -> BTreeMap<String, Family> {
    let definitions = items.into_iter().filter_map(|item| match item {
        Item::Macro(definition) => Some((definition.ident.as_ref()?.to_string(), definition.mac.tokens.clone())),
        _ => None,
    });
    definitions.filter_map(|(name, tokens)| Some((name, family(tokens)?))).collect()
}

/// A macro of one rule, whose parameters are names; none where it is another kind of macro.
fn family(tokens: TokenStream) -> Option<Family> {
    let groups: Vec<Group> =
        tokens.into_iter().filter_map(|token| if let TokenTree::Group(group) = token { Some(group) } else { None }).collect();
    let [pattern, body] = <[Group; 2]>::try_from(groups).ok()?;
    let body = syn::parse2::<syn::File>(flat(body.stream())).ok()?.items;
    let mut parameters = vec![Vec::new()];
    names_in(pattern.stream(), &mut parameters);
    Some(Family { parameters, body })
}

/// The parameters `$name:ident` of a pattern, by the groups that semicolons make.
fn names_in(pattern: TokenStream, found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = pattern.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => names_in(group.stream(), found),
            TokenTree::Punct(mark) if mark.as_char() == ';' => found.push(Vec::new()),
            TokenTree::Ident(kind) if kind == "ident" && index >= 2 => {
                if let (TokenTree::Ident(name), Some(names)) = (&tokens[index - 2], found.last_mut()) {
                    names.push(name.to_string());
                }
            }
            _ => {}
        }
    }
}

/// The words of a call, by the groups that semicolons make.
fn split(tokens: TokenStream) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new()];
    for token in tokens {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == ';' => groups.push(Vec::new()),
            TokenTree::Ident(word) => groups.last_mut().expect("at least one").push(word.to_string()),
            _ => {}
        }
    }
    groups
}

/// The body of a macro as items: what is repeated stands once, and a parameter `$name` is `__name`.
fn flat(body: TokenStream) -> TokenStream {
    let mut out = Vec::new();
    let mut tokens = body.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '$' => match tokens.next() {
                Some(TokenTree::Group(repeated)) => {
                    out.extend(flat(repeated.stream()));
                    // What separates them, and how often.
                    while let Some(TokenTree::Punct(_)) = tokens.next_if(|token| matches!(token, TokenTree::Punct(_))) {}
                }
                Some(TokenTree::Ident(name)) if name == "crate" => out.push(TokenTree::Ident(name)),
                Some(TokenTree::Ident(name)) => out.push(TokenTree::Ident(Ident::new(&format!("__{name}"), Span::call_site()))),
                other => panic!("after a dollar sign: {other:?}"),
            },
            TokenTree::Group(group) => out.push(TokenTree::Group(Group::new(group.delimiter(), flat(group.stream())))),
            other => out.push(other),
        }
    }
    out.into_iter().collect()
}

/// Lines of `(parameters; result; last) rows by columns of type: names;`, of which a few words say what their place is.
fn by_places(called: &str, tokens: TokenStream, found: &mut BTreeMap<String, Exported>) {
    let (mut words, mut sides) = (Vec::new(), Vec::new());
    let number = |bytes| Class::Integer { bytes, is_signed: true };
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                (words, sides) = (split(group.stream()).concat(), Vec::new());
            }
            TokenTree::Ident(name) if name.to_string().starts_with("cusolver") => {
                let mut places = vec![Class::Pointer];
                for word in &words {
                    places.push(match (called, word.as_str()) {
                        ("computes", "info") | ("asks_for_elements", "lwork") | ("asks_for_bytes", "bytes") => Class::Pointer,
                        ("computes", "count") => number(4),
                        ("computes", "wide_count") => number(8),
                        (_, word) if sides.iter().skip_while(|side| *side != "of").any(|side| side == word) => number(4),
                        (_, word) if sides.iter().any(|side| side == word) => number(if called == "asks_for_bytes" { 8 } else { 4 }),
                        _ => Class::Place,
                    });
                    // The bytes on the host follow those on the device.
                    if (called, word.as_str()) == ("asks_for_bytes", "bytes") {
                        places.push(Class::Pointer);
                    }
                }
                found.insert(name.to_string(), Exported { parameters: Parameters::All(places), result: number(4) });
            }
            TokenTree::Ident(side) => sides.push(side.to_string()),
            _ => {}
        }
    }
}
