//! Every call of the service by its descriptor: a test over all of them knows a new one by itself.

use bytes::{Buf, BufMut};
use ovenbird_hostagent::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    Value,
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

const SERVICE: &str = "hostagent.v1.HostAgentService";

/// What a field of this name gets, so that a call is a sound one: of a sandbox `a` with a command `held`.
const SOUND: &[(&str, &str)] = &[
    ("sandbox_id", "a"),
    ("template", "minimal"),
    ("name", "fresh"),
    ("cmd", "true"),
    ("path", "/etc/hostname"),
    ("exec_id", "held"),
    ("range", "10m"),
    // Of an archive that is unpacked, which is one by having it.
    ("user", "root"),
];

/// Makes a value of a field's own type.
pub(crate) type Number = fn(i32) -> Value;

/// A call that can be made.
#[derive(Clone)]
pub(crate) struct Call {
    method: MethodDescriptor,
    message: DynamicMessage,
}

impl Call {
    /// All there are, with sound requests.
    pub(crate) fn all() -> Vec<Self> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let service = pool.get_service_by_name(SERVICE).unwrap();
        service.methods().map(Self::sound).collect()
    }

    /// One of them.
    pub(crate) fn named(name: &str) -> Self {
        let call = Self::all().into_iter().find(|call| call.name() == name);
        call.unwrap_or_else(|| panic!("there is no call {name}"))
    }

    fn sound(method: MethodDescriptor) -> Self {
        let message = DynamicMessage::new(method.input());
        let mut call = Self { method, message };
        for (name, value) in SOUND {
            call = call.with(name, Value::String((*value).to_owned()));
        }
        call
    }

    pub(crate) fn name(&self) -> &str {
        self.method.name()
    }

    /// Whether its request has a field of this name.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.leaves().iter().any(|path| ends_with(path, field))
    }

    /// The same with another value in the fields of this name, if it has any.
    pub(crate) fn with(&self, field: &str, value: Value) -> Self {
        let mut call = self.clone();
        for path in self.leaves().iter().filter(|path| ends_with(path, field)) {
            set(&mut call.message, path, value.clone());
        }
        call
    }

    /// The same with another text.
    pub(crate) fn with_text(&self, field: &str, text: &str) -> Self {
        self.with(field, Value::String(text.to_owned()))
    }

    /// The names of its numbers that can be negative, and a value of the type of each.
    pub(crate) fn signed(&self) -> Vec<(String, Number)> {
        let signed = |path: &Vec<FieldDescriptor>| {
            let field = path.last()?;
            let value: Number = match field.kind() {
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32,
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => |number| Value::I64(number.into()),
                Kind::Double | Kind::Float => panic!("{} can be negative, too", field.name()),
                _ => return None,
            };
            Some((field.name().to_owned(), value))
        };
        self.leaves().iter().filter_map(signed).collect()
    }

    /// Makes the call, and waits for its end.
    pub(crate) async fn made(&self, channel: Channel) -> Result<(), Status> {
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        let path = format!("/{SERVICE}/{}", self.name()).parse().unwrap();
        // One message in each direction is what a call without streams is on the wire.
        let request = Request::new(tokio_stream::iter([self.message.encode_to_vec()]));
        let mut answers = client.streaming(request, path, Bytes).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }

    fn leaves(&self) -> Vec<Vec<FieldDescriptor>> {
        leaves(&self.method.input())
    }
}

fn ends_with(path: &[FieldDescriptor], name: &str) -> bool {
    path.last().is_some_and(|field| field.name() == name)
}

/// The ways to all single values of a message.
fn leaves(message: &MessageDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let single = message.fields().filter(|field| !field.is_list() && !field.is_map());
    let ways = single.flat_map(|field| match field.kind() {
        Kind::Message(inner) => {
            let below = |rest| [vec![field.clone()], rest].concat();
            leaves(&inner).into_iter().map(below).collect()
        }
        _ => vec![vec![field]],
    });
    ways.collect()
}

fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], value: Value) {
    match path {
        [] => unreachable!("a way has an end"),
        [field] => message.set_field(field, value),
        [field, rest @ ..] => match message.get_field_mut(field) {
            Value::Message(inner) => set(inner, rest, value),
            other => panic!("{other:?} is no message"),
        },
    }
}

/// Requests as they are; answers are not looked at.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
