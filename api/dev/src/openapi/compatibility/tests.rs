//! Each rule by the smallest pair of documents that it is about.

use serde_json::{Value, json};

use super::breaks;

/// A document of one operation with a body, a parameter and an answer, changed by `change`.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let released = document();
    let mut now = document();
    change(&mut now);
    breaks(&released, &now).iter().map(ToString::to_string).collect()
}

fn document() -> Value {
    json!({
        "openapi": "3.0.0",
        "paths": { "/things": { "post": {
            "security": [],
            "parameters": [
                { "name": "limit", "in": "query", "required": false,
                  "schema": { "type": "integer", "format": "uint32", "minimum": 1, "maximum": 200 } },
            ],
            "requestBody": { "required": true, "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Wish" } } } },
            "responses": {
                "201": {
                    "headers": { "LOCATION": { "schema": { "type": "string" } } },
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } },
                },
                "204": {},
            },
        } } },
        "components": { "schemas": {
            "Wish": {
                "type": "object", "additionalProperties": false, "required": ["name"],
                "properties": {
                    "name": { "type": "string", "pattern": "^a+$", "maxLength": 10 },
                    "colour": { "type": "string", "enum": ["red", "green"] },
                    "size": { "type": "number" },
                    "parts": { "type": "array", "items": { "anyOf": [
                        { "type": "string" }, { "$ref": "#/components/schemas/Wish" } ] } },
                },
            },
            "Thing": {
                "type": "object", "required": ["id", "state"],
                "properties": {
                    "id": { "type": "string" },
                    "state": { "allOf": [{ "$ref": "#/components/schemas/State" }] },
                    "size": { "type": "integer", "minimum": 0 },
                    "parent": { "$ref": "#/components/schemas/Thing" },
                },
            },
            "State": { "type": "string", "enum": ["new", "old"] },
        } },
    })
}

fn operation(document: &mut Value) -> &mut Value {
    &mut document["paths"]["/things"]["post"]
}

fn schema<'a>(document: &'a mut Value, name: &str) -> &'a mut Value {
    &mut document["components"]["schemas"][name]
}

#[test]
fn nothing_breaks_where_nothing_changed_or_something_was_added() {
    assert_eq!(changed(|_| {}), [""; 0]);
    let wider = changed(|now| {
        now["paths"]["/others"] = json!({ "get": { "responses": { "200": {} } } });
        operation(now)["responses"]["429"] = json!({});
        operation(now)["parameters"].as_array_mut().unwrap().push(json!({
            "name": "colour", "in": "query", "required": false, "schema": { "type": "string" },
        }));
        operation(now)["parameters"][0]["schema"] =
            json!({ "type": "integer", "format": "uint64" });
        let wish = schema(now, "Wish");
        wish["required"] = json!([]);
        wish["properties"]["weight"] = json!({ "type": "integer" });
        wish["properties"]["name"] = json!({ "type": "string", "maxLength": 20 });
        wish["properties"]["colour"]["enum"] = json!(["red", "green", "blue"]);
        let thing = schema(now, "Thing");
        thing["required"] = json!(["id", "state", "size", "weight"]);
        thing["properties"]["weight"] = json!({ "type": "integer" });
        thing["properties"]["size"]["minimum"] = json!(1);
        schema(now, "State")["enum"] = json!(["new"]);
    });
    assert_eq!(wider, [""; 0]);
}

#[test]
fn removed_paths_methods_answers_and_headers_break() {
    let gone = changed(|now| _ = now["paths"].as_object_mut().unwrap().remove("/things"));
    assert_eq!(gone, ["POST /things: is gone"]);
    let other = changed(|now| {
        let operation = operation(now).take();
        now["paths"]["/things"] = json!({ "put": operation });
    });
    assert_eq!(other, ["POST /things: is gone"]);
    let answers = changed(|now| {
        let responses = operation(now)["responses"].as_object_mut().unwrap();
        responses.remove("204");
        responses["201"]["headers"] = json!({});
    });
    assert_eq!(
        answers,
        ["POST /things, answer 201, header LOCATION: is gone", "POST /things, answer 204: is gone"]
    );
    let content = changed(|now| {
        operation(now)["responses"]["201"]["content"] = json!({ "text/plain": {} });
        operation(now)["responses"]["204"]["content"] = json!({ "text/plain": {} });
    });
    assert_eq!(
        content,
        [
            "POST /things, answer 201: is no application/json any more",
            "POST /things, answer 204: has a content now"
        ]
    );
}

#[test]
fn removed_fields_and_parameters_break_either_way() {
    let fields = changed(|now| {
        schema(now, "Wish")["properties"].as_object_mut().unwrap().remove("size");
        schema(now, "Thing")["properties"].as_object_mut().unwrap().remove("state");
    });
    assert_eq!(
        fields,
        ["POST /things, answer 201.state: is gone", "POST /things, request.size: is gone"]
    );
    let parameters = changed(|now| operation(now)["parameters"] = json!([]));
    assert_eq!(parameters, ["POST /things, query parameter limit: is gone"]);
}

#[test]
fn new_required_input_and_a_key_that_was_not_needed_break() {
    let body = changed(|now| {
        let wish = schema(now, "Wish");
        wish["required"] = json!(["name", "colour", "weight"]);
        wish["properties"]["weight"] = json!({ "type": "integer" });
    });
    assert_eq!(
        body,
        [
            "POST /things, request.colour: is required now",
            "POST /things, request.weight: is new and required"
        ]
    );
    let parameters = changed(|now| {
        let parameters = operation(now)["parameters"].as_array_mut().unwrap();
        parameters[0]["required"] = json!(true);
        parameters.push(json!({ "name": "X-Who", "in": "header", "required": true }));
    });
    assert_eq!(
        parameters,
        [
            "POST /things, header parameter X-Who: is new and required",
            "POST /things, query parameter limit: is required now"
        ]
    );
    let key = changed(|now| operation(now)["security"] = json!([{ "bearer": [] }]));
    assert_eq!(key, ["POST /things: needs a key now"]);
}

#[test]
fn body_that_may_not_be_left_out_any_more_breaks() {
    let mut released = document();
    operation(&mut released)["requestBody"]["required"] = json!(false);
    let found = breaks(&released, &document());
    assert_eq!(found[0].to_string(), "POST /things, request: is required now");
    operation(&mut released).as_object_mut().unwrap().remove("requestBody");
    let found = breaks(&released, &document());
    assert_eq!(found[0].to_string(), "POST /things, request: is required now");
    let mut without = document();
    operation(&mut without).as_object_mut().unwrap().remove("requestBody");
    assert_eq!(breaks(&document(), &without)[0].to_string(), "POST /things, request: is gone");
}

#[test]
fn narrowed_input_breaks() {
    let found = changed(|now| {
        operation(now)["parameters"][0]["schema"] =
            json!({ "type": "integer", "format": "uint32", "minimum": 2, "maximum": 100 });
        let properties = &mut schema(now, "Wish")["properties"];
        properties["name"] =
            json!({ "type": "string", "pattern": "^b+$", "maxLength": 5, "minLength": 1 });
        properties["colour"]["enum"] = json!(["red"]);
        properties["size"]["type"] = json!("integer");
        properties["parts"]["items"] = json!({ "type": "string" });
    });
    assert_eq!(
        found,
        [
            "POST /things, query parameter limit: maximum was 200, is 100",
            "POST /things, query parameter limit: minimum was 1, is 2",
            "POST /things, request.colour: \"green\" is not allowed any more",
            "POST /things, request.name: maxLength was 10, is 5",
            "POST /things, request.name: minLength was none, is 1",
            "POST /things, request.name: pattern was \"^a+$\", is \"^b+$\"",
            "POST /things, request.parts[]: alternative Wish is not taken any more",
            "POST /things, request.size: was number, is integer",
        ]
    );
    let closed = {
        let mut released = document();
        schema(&mut released, "Wish").as_object_mut().unwrap().remove("additionalProperties");
        breaks(&released, &document())
    };
    assert_eq!(closed[0].to_string(), "POST /things, request: refuses unknown fields now");
}

#[test]
fn widened_output_breaks() {
    let found = changed(|now| {
        let thing = schema(now, "Thing");
        thing["required"] = json!(["id"]);
        thing["properties"]["id"] = json!({ "type": "string", "nullable": true });
        thing["properties"]["size"] = json!({ "type": "number" });
        schema(now, "State")["enum"] = json!(["new", "old", "lost"]);
    });
    assert_eq!(
        found,
        [
            "POST /things, answer 201.id: may be null now",
            "POST /things, answer 201.size: minimum was 0, is none",
            "POST /things, answer 201.size: was integer, is number",
            "POST /things, answer 201.state: \"lost\" is new among the listed values",
            "POST /things, answer 201.state: may be absent now",
        ]
    );
}
