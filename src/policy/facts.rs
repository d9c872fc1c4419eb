//! What a decision is made on.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{DatasetId, ParticipantId},
    policy::{Action, Before, Value},
};

macro_rules! context_facts {
    ($($(#[$doc:meta])* $variant:ident $name:literal $zh:literal $kind:ident $source:ident,)*) => {
        /// A fact in the context, named as in TC609-6-2025-14 C.6 where it is there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ContextFact { $($(#[$doc])* $variant,)* }

        impl ContextFact {
            /// All of them.
            pub const ALL: [Self; [$($name,)*].len()] = [$(Self::$variant,)*];

            /// The attribute's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// In Chinese.
            pub const fn zh(self) -> &'static str {
                match self { $(Self::$variant => $zh,)* }
            }

            /// Who vouches for it.
            pub const fn source(self) -> FactSource {
                match self { $(Self::$variant => FactSource::$source,)* }
            }

            /// What kind of value it has.
            pub const fn kind(self) -> FactKind {
                match self { $(Self::$variant => FactKind::$kind,)* }
            }
        }
    };
}

context_facts! {
    /// The time. TC609's `time` is a range of it; both names are the same instant.
    Now "now" "当前时间" Time Verified,
    /// The same by the dictionary's name.
    Time "time" "时间范围" Time Verified,
    /// How long since the agreement came into force, or, in a use, since the copy arrived.
    TimeWindow "timeWindow" "时间窗口" Span Verified,
    /// ISO 8601: Monday is 1, Sunday is 7, in the policy's zone.
    Weekday "weekday" "星期" Long Verified,
    /// Since midnight, in the policy's zone.
    TimeOfDay "timeOfDay" "时刻" Span Verified,
    /// From which jurisdiction.
    Region "region" "限制地域" Text Operator,
    /// At which site.
    PhysicalAddress "physicalAddress" "物理地址" Text Operator,
    /// From where.
    NetworkAddress "networkAddress" "网络地址" Ip Verified,
    /// How often before, under this agreement, by this action.
    Count "count" "使用次数" Long Verified,
    /// How often before, in the calendar periods of now.
    Frequency "frequency" "使用频次" Frequency Verified,
    /// What was spent before: under this agreement, by this action.
    Spent "spent" "累计用量" Spent Verified,
    /// What was spent before: by this participant of this dataset, under all its agreements, by this action.
    Subject "subject" "主体累计用量" Spent Verified,
    /// How many bytes it is about, before obligations.
    DataSize "dataSize" "数据规模" Long Verified,
    /// How many records it is about, before obligations.
    DataRecord "dataRecord" "数据记录数" Long Verified,
    /// Which columns are asked for.
    DataField "dataField" "数据字段" Texts Verified,
    /// Which row filter is asked for; "" for all rows.
    ValueExpression "valueExpression" "数据字段值" Text Verified,
    /// By which application.
    Application "application" "应用程序" Text Declared,
    /// SHA-256 of the algorithm that is run.
    Algorithm "algorithm" "算法" Text Declared,
    /// The models that are run, by id or hash.
    MachineLearningModels "machineLearningModels" "机器学习模型" Texts Declared,
    /// Where it is run: 01 usage control, 02 sandbox, 03 MPC, 04 federated learning, 05 TEE, 06 confidential computing.
    ExecutionEnv "executionEnv" "执行环境" Text Declared,
    /// How it leaves: 01 plain, 02 sealed.
    EncryptMode "encryptMode" "加密方式" Text Verified,
    /// How it is handed over: 01 file, 02 stream, 03 API.
    DeliveryMethod "deliveryMethod" "交付方式" Text Verified,
    /// What was paid for this agreement, as the operator recorded it.
    PayAmount "payAmount" "交易金额" Decimal Operator,
    /// The reference of that payment; "" where none is recorded.
    PayReference "payReference" "付款凭证" Text Operator,
    /// What for. A declared extension: the dictionary has no purpose.
    Purpose "purpose" "使用目的" Text Declared,
    /// Under which agreement; "" before there is one.
    Agreement "agreement" "合约" Text Verified,
    /// The roles that approved exactly this request, each by a receipt.
    Approval "approval" "审批" Texts Verified,
    /// The consents that are in force for this participant and dataset, by name.
    Consent "consent" "同意" Texts Operator,
}

/// Who vouches for a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactSource {
    /// The connection, the store or the clock.
    Verified,
    /// Our operator, at pairing or by a record.
    Operator,
    /// The partner says so of itself.
    Declared,
}

/// What kind of value a fact has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the values' own names")]
pub enum FactKind {
    Text,
    Long,
    Time,
    Span,
    Decimal,
    Ip,
    Texts,
    Frequency,
    Spent,
}

impl ContextFact {
    /// The fact of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.name() == name)
    }

    /// Whether a value is of the fact's type in the schema. One that isn't equals nothing, so that a `forbid` would
    /// be stepped around.
    pub(super) fn takes(self, value: &Value) -> bool {
        self.kind() == value.kind()
    }
}

impl Value {
    /// What kind of value it is.
    pub const fn kind(&self) -> FactKind {
        match self {
            Self::Text(_) => FactKind::Text,
            Self::Long(_) => FactKind::Long,
            Self::Time(_) => FactKind::Time,
            Self::Span(_) => FactKind::Span,
            Self::Decimal(_) => FactKind::Decimal,
            Self::Ip(_) => FactKind::Ip,
            Self::Texts(_) => FactKind::Texts,
            Self::Frequency(_) => FactKind::Frequency,
            Self::Spent(_) => FactKind::Spent,
        }
    }
}

/// By name, for messages.
impl std::fmt::Display for ContextFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The participant.
    pub id: ParticipantId,
    /// Its jurisdiction; `None` is known to be unstated, and reads "".
    pub jurisdiction: Option<String>,
    /// Its roles.
    pub roles: BTreeSet<String>,
    /// Its certifications.
    pub certifications: BTreeSet<String>,
    /// Its groups.
    pub groups: BTreeSet<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The dataset.
    pub dataset: DatasetId,
    /// The collection that it is in.
    pub collection: Option<String>,
    /// Who provides it.
    pub provider: ParticipantId,
    /// Its classification; `None` reads "".
    pub classification: Option<String>,
    /// The datasets that it was derived from.
    pub parents: BTreeSet<String>,
}

/// Everything that a decision is made on. A fact that could not be had is not in `context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who.
    pub principal: Principal,
    /// Does what.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// Under which circumstances.
    pub context: BTreeMap<ContextFact, Value>,
    /// What has been done first, for exactly this request.
    pub met: BTreeSet<Before>,
}
