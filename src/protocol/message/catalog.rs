//! Catalogs and what is in them (DSP 2025-1 §5, DCAT 3).

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::{
    error::Refusal,
    id::{DatasetId, ParticipantId, Sha256},
    protocol::{
        json::{id, many, maybe_text, shortened},
        message::{Address, Offer},
    },
};

/// `CatalogRequestMessage`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatalogRequest {
    /// A query in a shape that is the implementations' own affair; see [`Self::query`].
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<Value>,
}

/// What a dataset must be to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    field: Field,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Title,
    Description,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// One of these texts.
    In(Vec<String>),
    /// Like this text, where `%` stands for any characters; case doesn't matter.
    Like(String),
}

impl Criterion {
    /// Whether this entry of a catalog fits. What an entry doesn't show doesn't fit.
    pub fn fits(&self, dataset: &Dataset) -> bool {
        let value = match self.field {
            Field::Id => Some(dataset.id.as_str()),
            Field::Title => dataset.title.as_deref(),
            Field::Description => dataset.description.as_deref(),
        };
        value.is_some_and(|value| match &self.test {
            Test::In(texts) => texts.iter().any(|text| text == value),
            Test::Like(pattern) => like(&pattern.to_lowercase(), &value.to_lowercase()),
        })
    }

    /// EDC's `{operandLeft, operator, operandRight}`.
    fn read(value: &Value) -> Option<Self> {
        let member = |name: &str| value.get(name).or_else(|| value.get(format!("{EDC}{name}")));
        let field = match member("operandLeft")?.as_str()?.trim_start_matches(EDC) {
            "id" | "@id" => Field::Id,
            "title" | "dct:title" | "http://purl.org/dc/terms/title" => Field::Title,
            "description" | "dct:description" | "http://purl.org/dc/terms/description" => Field::Description,
            _ => return None,
        };
        let right = member("operandRight")?;
        let test = match member("operator")?.as_str()? {
            "=" => Test::In(vec![right.as_str()?.to_owned()]),
            "in" => {
                Test::In(right.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<_>>()?)
            }
            "like" => Test::Like(right.as_str()?.to_owned()),
            _ => return None,
        };
        Some(Self { field, test })
    }
}

/// `%` stands for any characters; linear in both.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('%');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The part of a catalog that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// What a dataset must be, all of it.
    pub criteria: Vec<Criterion>,
    /// How many datasets to pass over.
    pub offset: u64,
    /// How many to show at most; none: as many as the provider likes.
    pub limit: Option<u64>,
}

impl CatalogRequest {
    /// What the filter asks for, where it is one that we serve: none, or EDC's `QuerySpec` (which its catalog requests
    /// always carry) with `offset`, `limit` and criteria on what a catalog shows.
    ///
    /// # Errors
    /// `filter-unsupported` names what we don't serve; the specification wants status 400 for it.
    pub fn query(&self) -> Result<Query, Refusal> {
        let unsupported = |what: &str| {
            let sentence = format!(
                "this catalog takes `offset`, `limit`, and criteria on id, title and description (=, in, like); remove {}",
                shortened(what)
            );
            Refusal::new("filter-unsupported", sentence)
        };
        let spec = match self.filter.as_slice() {
            [] => return Ok(Query::default()),
            [Value::Object(spec)] => spec,
            [other] => return Err(unsupported(&other.to_string())),
            _ => return Err(unsupported("all but one")),
        };
        let mut query = Query::default();
        for (key, value) in spec {
            let number = || value.as_u64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(|| unsupported(key));
            match key.strip_prefix(EDC).or_else(|| key.strip_prefix("edc:")).unwrap_or(key) {
                "@type" | "@id" | "@context" => {}
                "offset" => query.offset = number()?,
                "limit" => query.limit = Some(number()?),
                // an order is a wish: pages come in the provider's own stable order
                "sortOrder" | "sortField" => {}
                "filterExpression" if value.is_null() => {}
                "filterExpression" => {
                    let criteria = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                    for criterion in criteria {
                        let read = Criterion::read(criterion).ok_or_else(|| unsupported(&criterion.to_string()))?;
                        query.criteria.push(read);
                    }
                }
                _ => return Err(unsupported(&format!("`{key}`"))),
            }
        }
        Ok(query)
    }
}

/// `Catalog`: a participant's offers, as one caller sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// Its id.
    #[serde(rename = "@id")]
    pub id: String,
    /// The provider.
    #[serde(deserialize_with = "id")]
    pub participant_id: ParticipantId,
    /// Where the datasets can be had; the specification's prose wants at least one.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<DataService>,
    /// What this page shows.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub dataset: Vec<Dataset>,
    /// Catalogs within.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub catalog: Vec<NestedCatalog>,
}

impl Catalog {
    /// Every dataset, those of nested catalogs included.
    pub fn into_datasets(self) -> Vec<Dataset> {
        let mut all = self.dataset;
        let mut rest = self.catalog;
        while let Some(nested) = rest.pop() {
            all.extend(nested.dataset);
            rest.extend(nested.catalog);
        }
        all
    }
}

/// A catalog within a catalog; we send none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "Catalog")]
pub struct NestedCatalog {
    /// Its id.
    #[serde(rename = "@id")]
    pub id: String,
    /// Its datasets.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub dataset: Vec<Dataset>,
    /// Catalogs within.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub catalog: Vec<Self>,
}

/// `Dataset`: what can be negotiated for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "Dataset", rename_all = "camelCase")]
pub struct Dataset {
    /// The provider's id of it.
    #[serde(rename = "@id")]
    pub id: DatasetId,
    /// `dct:title`; a sealed offer's entry has none.
    #[serde(
        rename = "dct:title",
        alias = "http://purl.org/dc/terms/title",
        default,
        deserialize_with = "maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub title: Option<String>,
    /// `dct:description`; a sealed offer's entry has none.
    #[serde(
        rename = "dct:description",
        alias = "http://purl.org/dc/terms/description",
        alias = "description",
        default,
        deserialize_with = "maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub description: Option<String>,
    /// The offers of it, at least one.
    #[serde(deserialize_with = "many")]
    pub has_policy: Vec<Offer>,
    /// How it can be had, at least one.
    #[serde(deserialize_with = "many")]
    pub distribution: Vec<Distribution>,
    /// Between Counterseal peers, in a dataset's answer: the signed offer (JWS), or it sealed to the caller (JWE).
    #[serde(rename = "https://w3id.org/counterseal/ns#offer", default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// Between Counterseal peers: SHA-256 of the signed offer.
    #[serde(rename = "https://w3id.org/counterseal/ns#offerSha256", default, skip_serializing_if = "Option::is_none")]
    pub offer_sha256: Option<Sha256>,
}

/// `Distribution`: one way to have a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "Distribution", rename_all = "camelCase")]
pub struct Distribution {
    /// The transfer format that a transfer request names.
    #[serde(deserialize_with = "id")]
    pub format: String,
    /// The service that serves it.
    pub access_service: Service,
}

/// A data service by its id, or itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Service {
    /// The `@id` of one that the catalog lists.
    Id(String),
    /// Written out in its place.
    Inline(DataService),
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value {
            Value::String(id) => Ok(Self::Id(id)),
            Value::Array(mut items) if items.len() == 1 => Self::deserialize(items.remove(0)).map_err(D::Error::custom),
            Value::Object(mut object) if !object.contains_key("endpointURL") => match object.remove("@id") {
                Some(Value::String(id)) => Ok(Self::Id(id)),
                _ => Err(D::Error::custom("`accessService` has neither `@id` nor `endpointURL`")),
            },
            value => DataService::deserialize(value).map(Self::Inline).map_err(D::Error::custom),
        }
    }
}

/// `DataService`: a connector's endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "DataService")]
pub struct DataService {
    /// Its id.
    #[serde(rename = "@id")]
    pub id: String,
    /// The `<base>` of the same protocol version.
    #[serde(rename = "endpointURL")]
    pub endpoint_url: Address,
}

const EDC: &str = "https://w3id.org/edc/v0.0.1/ns/";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn edcs_page_request_is_honoured() {
        let filter = json!([{
            "@type": "QuerySpec", "offset": 50, "limit": "25", "sortOrder": "ASC", "filterExpression": [],
        }]);
        let request: CatalogRequest = serde_json::from_value(json!({"filter": filter})).unwrap();
        assert_eq!(request.query().unwrap(), Query { offset: 50, limit: Some(25), criteria: Vec::new() });
        let request: CatalogRequest =
            serde_json::from_value(json!({"filter": {"https://w3id.org/edc/v0.0.1/ns/limit": 7}})).unwrap();
        assert_eq!(request.query().unwrap().limit, Some(7));
        assert_eq!(CatalogRequest::default().query().unwrap(), Query::default());
    }

    #[test]
    fn a_filter_that_we_do_not_serve_is_refused_by_name() {
        for filter in [
            json!([{"filterExpression": [{"operandLeft": "x"}]}]),
            json!([{"keyword": "x"}]),
            json!(["x"]),
            json!([{}, {}]),
            json!([{"limit": -1}]),
        ] {
            let refused = CatalogRequest { filter: filter.as_array().unwrap().clone() }.query().unwrap_err();
            assert!(refused.is("filter-unsupported"), "{filter}");
        }
    }

    #[test]
    fn a_foreign_catalog_is_read_leniently() {
        let dataset = |id: &str| {
            json!({
                "@id": id, "@type": "Dataset", "id": id, "dct:title": [{"@value": "T", "@language": "en"}],
                "hasPolicy": {"@id": "o", "permission": {"action": "use"}, "prohibition": [], "obligation": []},
                "distribution": {"format": {"@id": "HttpData-PULL"}, "accessService": {"@id": "s"}},
            })
        };
        let catalog: Catalog = serde_json::from_value(json!({
            "@id": "c", "participantId": {"@id": "p"}, "dataset": dataset("a"),
            "catalog": {"@id": "n", "@type": "Catalog", "dataset": [dataset("b")], "catalog": [{"@id": "e"}]},
            "service": {"@id": "s", "@type": "DataService", "endpointURL": "http://p.example/dsp/"},
        }))
        .unwrap();
        assert_eq!(catalog.service[0].endpoint_url.as_str(), "http://p.example/dsp");
        let datasets = catalog.into_datasets();
        assert_eq!(datasets.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(datasets[0].title.as_deref(), Some("T"));
        assert_eq!(datasets[0].distribution[0].access_service, Service::Id("s".into()));
    }
}
