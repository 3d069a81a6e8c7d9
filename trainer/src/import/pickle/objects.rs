//! What a pickle describes: values, and objects that refer to each other by number.

/// Most axes of a tensor: they are copied for each tensor that has them.
const MOST_AXES: usize = 8;

/// Why a pickle is refused: a sentence that begins behind the file's name.
pub(super) type Refusal = String;
pub(super) type Result<T> = std::result::Result<T, Refusal>;

/// An object, or where it lies in [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::import) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Global(Global),
    Heap(usize),
    Mark,
}

/// The names that may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::import) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Kind),
}

/// What a storage's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::import) enum Kind {
    F64,
    F32,
    F16,
    BF16,
    /// Whole numbers and truth values, of so many bytes.
    Whole(usize),
}

impl Kind {
    /// Bytes of an element.
    pub(in crate::import) fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Whole(bytes) => bytes,
        }
    }

    fn of(storage: &str) -> Option<Self> {
        Some(match storage {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::Whole(8),
            "IntStorage" => Self::Whole(4),
            "ShortStorage" => Self::Whole(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Self::Whole(1),
            _ => return None,
        })
    }
}

impl Global {
    pub(super) fn of(module: &str, name: &str) -> Result<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Ok(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Self::RebuildParameter),
            ("torch", "Size") => Ok(Self::Size),
            ("torch", storage) if Kind::of(storage).is_some() => {
                Kind::of(storage).map(Self::Storage).ok_or_else(String::new)
            }
            _ => Err(format!(
                "names {module}.{name}, which is no tensor and would be called by who loads the file in Python; nothing was \
                 run, and nothing of it is taken. If you trust its source, save the weights alone in Python: \
                 torch.save(model.state_dict(), FILE)"
            )),
        }
    }
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::import) struct View {
    /// The storage's name in the file.
    pub(in crate::import) key: String,
    pub(in crate::import) kind: Kind,
    /// Elements of the storage.
    pub(in crate::import) elements: usize,
    /// The first element.
    pub(in crate::import) offset: usize,
    pub(in crate::import) shape: Vec<usize>,
    /// Elements from one index of an axis to the next.
    pub(in crate::import) strides: Vec<usize>,
}

/// What a [`Value`] may refer to.
#[derive(Debug)]
pub(in crate::import) enum Object {
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage { key: String, kind: Kind, elements: usize },
    Tensor(View),
}

/// Every object of a pickle.
#[derive(Debug, Default)]
pub(in crate::import) struct Heap(Vec<Object>);

impl Heap {
    /// The object at a value, to be changed.
    pub(super) fn object_mut(&mut self, value: Value) -> Option<&mut Object> {
        match value {
            Value::Heap(place) => self.0.get_mut(place),
            _ => None,
        }
    }

    pub(in crate::import) fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Heap(place) => self.0.get(place),
            _ => None,
        }
    }

    pub(in crate::import) fn text(&self, value: Value) -> Option<&str> {
        match self.object(value)? {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(in crate::import) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.object(value)? {
            Object::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    pub(in crate::import) fn list(&self, value: Value) -> Option<&[Value]> {
        match self.object(value)? {
            Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// The name and the bytes of every storage.
    pub(in crate::import) fn storages(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().filter_map(|object| match object {
            Object::Storage { key, kind, elements } => {
                Some((key.as_str(), (*elements as u64).saturating_mul(kind.size() as u64)))
            }
            _ => None,
        })
    }

    pub(in crate::import) fn tensor(&self, value: Value) -> Option<&View> {
        match self.object(value)? {
            Object::Tensor(view) => Some(view),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: Value) -> Result<&[Value]> {
        match self.object(value) {
            Some(Object::Tuple(items)) => Ok(items),
            _ => Err(damaged("another thing stands where a tuple should")),
        }
    }

    pub(super) fn sizes(&self, value: Value) -> Result<Vec<usize>> {
        let items = self.tuple(value)?;
        if items.len() > MOST_AXES {
            return Err(damaged("a tensor has too many axes"));
        }
        items.iter().map(|item| size(*item)).collect()
    }

    pub(super) fn add(&mut self, object: Object) -> Value {
        self.0.push(object);
        Value::Heap(self.0.len() - 1)
    }
}

pub(super) fn damaged(what: &str) -> Refusal {
    format!("is damaged, or no file of weights: {what}")
}

pub(super) fn size(value: Value) -> Result<usize> {
    match value {
        Value::Int(number) => usize::try_from(number).map_err(|_| damaged("a size is negative")),
        _ => Err(damaged("a size is no number")),
    }
}
