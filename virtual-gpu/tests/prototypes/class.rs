//! What a type is to a function that is called from C: how wide it is, and which registers it comes in.

use std::collections::HashMap;

use syn::{Attribute, Expr, ExprLit, Fields, Item, Lit, Meta, Type, UseTree};

/// How a value is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Nothing,
    Pointer,
    Integer {
        bytes: usize,
        is_signed: bool,
    },
    Enumeration {
        bytes: usize,
    },
    Float {
        bytes: usize,
    },
    Structure {
        bytes: usize,
    },
    /// One place of 64 bits that is not looked at: any pointer, integer or enumeration.
    Place,
}

impl Class {
    /// Whether a parameter of this class takes what the header has. An enumeration is written as a number of its width.
    pub(super) fn is_passed_as(self, header: Self) -> bool {
        match (self, header) {
            (Self::Integer { bytes, .. }, Self::Enumeration { bytes: other }) => bytes == other,
            (Self::Place, Self::Pointer | Self::Integer { .. } | Self::Enumeration { .. }) => true,
            (own, other) => own == other,
        }
    }
}

enum Definition {
    /// Another name for a type.
    Alias(Box<Type>),
    /// The same, by name.
    Name(String),
    Class(Class),
    Structure(Vec<Type>),
    Union(Vec<Type>),
}

/// The types that a source defines.
#[derive(Default)]
pub(super) struct Types(HashMap<String, Definition>);

/// Whether what has these attributes is there when these features are on.
pub(super) fn is_there(attributes: &[Attribute], features: &[&str]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).all(|attribute| {
        let condition: Meta = attribute.parse_args().expect("a condition");
        holds(&condition, features)
    })
}

fn holds(condition: &Meta, features: &[&str]) -> bool {
    use syn::Token;
    use syn::punctuated::Punctuated;
    match condition {
        Meta::NameValue(pair) if pair.path.is_ident("feature") => {
            matches!(&pair.value, Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) if features.contains(&name.value().as_str()))
        }
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).expect("conditions");
            let mut parts = parts.iter().map(|part| holds(part, features));
            match list.path.get_ident().map(ToString::to_string).as_deref() {
                Some("any") => parts.any(|holds| holds),
                Some("all") => parts.all(|holds| holds),
                Some("not") => !parts.any(|holds| holds),
                _ => panic!("an unknown condition"),
            }
        }
        _ => false,
    }
}

fn types_of(fields: &Fields, features: &[&str]) -> Vec<Type> {
    fields.iter().filter(|field| is_there(&field.attrs, features)).map(|field| field.ty.clone()).collect()
}

impl Types {
    /// Learns what an item defines.
    pub(super) fn learn(&mut self, item: &Item, features: &[&str]) {
        let (name, attributes, definition) = match item {
            // C's enumerations are numbers to some versions of bindgen, and then their names say what they are.
            Item::Type(alias) if alias.ident.to_string().ends_with("_enum") => {
                (&alias.ident, &alias.attrs, Definition::Class(Class::Enumeration { bytes: 4 }))
            }
            Item::Type(alias) => (&alias.ident, &alias.attrs, Definition::Alias(alias.ty.clone())),
            Item::Enum(enumeration) => (&enumeration.ident, &enumeration.attrs, Definition::Class(Class::Enumeration { bytes: 4 })),
            Item::Struct(structure) => (&structure.ident, &structure.attrs, Definition::Structure(types_of(&structure.fields, features))),
            Item::Union(union) => {
                let fields = union.fields.named.iter().map(|field| field.ty.clone()).collect();
                (&union.ident, &union.attrs, Definition::Union(fields))
            }
            Item::Use(used) => {
                let mut tree = &used.tree;
                while let UseTree::Path(path) = tree {
                    tree = &path.tree;
                }
                let UseTree::Rename(renamed) = tree else { return };
                (&renamed.rename, &used.attrs, Definition::Name(renamed.ident.to_string()))
            }
            _ => return,
        };
        if is_there(attributes, features) {
            self.0.insert(name.to_string(), definition);
        }
    }

    /// A name that stands for a pointer.
    pub(super) fn add_pointer(&mut self, name: &str) {
        self.0.insert(name.to_owned(), Definition::Class(Class::Pointer));
    }

    pub(super) fn class(&self, kind: &Type) -> Class {
        match kind {
            Type::Ptr(_) | Type::FnPtr(_) | Type::Reference(_) => Class::Pointer,
            Type::Tuple(tuple) if tuple.elems.is_empty() => Class::Nothing,
            Type::Array(_) => Class::Structure { bytes: self.layout(kind).0 },
            Type::Path(path) => self.named(&path.path.segments.last().expect("a name").ident.to_string()),
            _ => panic!("a type that no C function has"),
        }
    }

    fn named(&self, name: &str) -> Class {
        let integer = |bytes, is_signed| Class::Integer { bytes, is_signed };
        match name {
            // Of functions.
            "Option" => Class::Pointer,
            "c_char" | "c_schar" | "i8" => integer(1, true),
            "c_uchar" | "u8" | "bool" => integer(1, false),
            "c_short" | "i16" => integer(2, true),
            "c_ushort" | "u16" => integer(2, false),
            "c_int" | "i32" => integer(4, true),
            "c_uint" | "u32" => integer(4, false),
            "c_long" | "c_longlong" | "i64" | "isize" => integer(8, true),
            "c_ulong" | "c_ulonglong" | "u64" | "usize" => integer(8, false),
            "c_float" | "f32" => Class::Float { bytes: 4 },
            "c_double" | "f64" => Class::Float { bytes: 8 },
            _ => match self.0.get(name).unwrap_or_else(|| panic!("an unknown type: {name}")) {
                Definition::Alias(kind) => self.class(kind),
                Definition::Name(other) => self.named(other),
                Definition::Class(class) => *class,
                Definition::Structure(_) | Definition::Union(_) => Class::Structure { bytes: self.layout_of_name(name).0 },
            },
        }
    }

    /// Bytes and alignment.
    fn layout(&self, kind: &Type) -> (usize, usize) {
        match kind {
            Type::Array(array) => {
                let (bytes, alignment) = self.layout(&array.elem);
                let Expr::Lit(ExprLit { lit: Lit::Int(count), .. }) = &array.len else { panic!("a length that is no number") };
                let count = count.base10_digits().parse::<usize>().expect("a number");
                (bytes * count, alignment)
            }
            Type::Path(path) => self.layout_of_name(&path.path.segments.last().expect("a name").ident.to_string()),
            _ => (8, 8),
        }
    }

    fn layout_of_name(&self, name: &str) -> (usize, usize) {
        match self.0.get(name) {
            Some(Definition::Alias(kind)) => self.layout(kind),
            Some(Definition::Name(other)) => self.layout_of_name(other),
            Some(Definition::Structure(fields)) => {
                let mut end: usize = 0;
                let mut most = 1;
                for (bytes, alignment) in fields.iter().map(|field| self.layout(field)) {
                    end = end.next_multiple_of(alignment) + bytes;
                    most = most.max(alignment);
                }
                (end.next_multiple_of(most), most)
            }
            Some(Definition::Union(fields)) => {
                let layouts = fields.iter().map(|field| self.layout(field));
                layouts.fold((0, 1), |(bytes, most), (other, alignment)| (bytes.max(other), most.max(alignment)))
            }
            Some(Definition::Class(_)) | None => match self.named(name) {
                Class::Integer { bytes, .. } | Class::Enumeration { bytes } | Class::Float { bytes } => (bytes, bytes),
                _ => (8, 8),
            },
        }
    }
}
