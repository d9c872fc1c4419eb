//! Actions: the lifecycle, which the provider decides, and the uses, which the consumer's connector decides.

use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// See it in the catalog.
    Discover,
    /// Agree on it.
    Negotiate,
    /// Let a snapshot leave.
    Release,
    /// Use a copy.
    Use(UseAction),
}

macro_rules! uses {
    ($($variant:ident $name:literal $zh:literal $reach:ident,)*) => {
        /// A use, in the words of TC609-6-2025-14 C.5; `view` and `resultDownload` are extensions (TC609-6-2025-15 A.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs, reason = "the dictionary's own words")]
        pub enum UseAction { $($variant,)* }

        impl UseAction {
            /// All of them, in the dictionary's order, extensions last.
            pub const ALL: [Self; [$($name,)*].len()] = [$(Self::$variant,)*];

            /// The Cedar action's id.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// In Chinese.
            pub const fn zh(self) -> &'static str {
                match self { $(Self::$variant => $zh,)* }
            }

            /// Who can see to it.
            pub const fn reach(self) -> Reach {
                match self { $(Self::$variant => Reach::$reach,)* }
            }
        }
    };
}

uses! {
    Transform "transform" "转换" Vault,
    Anonymize "anonymize" "匿名化" Vault,
    Desensitize "desensitize" "脱敏" Vault,
    Access "access" "访问" Vault,
    Read "read" "读取" Vault,
    Reproduce "reproduce" "复制" Vault,
    Storage "storage" "存储" Vault,
    Download "download" "下载" Vault,
    Process "process" "加工" Vault,
    JointDevelop "jointDevelop" "联合开发" Vault,
    Distribute "distribute" "分发" Vault,
    Compute "compute" "计算" Vault,
    GrantUse "grantUse" "授权使用" Promise,
    PolicyTransmit "policyTransmit" "策略传递" Vault,
    Delivery "delivery" "交付" Vault,
    Sell "sell" "交易" Promise,
    LogRecordSend "logRecordSend" "行为记录发送" Promise,
    Delete "delete" "删除" Vault,
    Alert "alert" "异常提醒" Promise,
    Compensate "compensate" "补偿" Promise,
    View "view" "查看" Vault,
    ResultDownload "resultDownload" "结果下载" Vault,
}

/// Who can see to a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The consumer's vault: the act begins with opening the copy, or is the vault's own.
    Vault,
    /// Nobody's machine: the act needs no copy that is opened, so that a connector never sees it.
    Promise,
}

impl UseAction {
    /// The use of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

impl Action {
    /// The Cedar action's id.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Negotiate => "negotiate",
            Self::Release => "release",
            Self::Use(action) => action.as_str(),
        }
    }

    /// In Chinese.
    pub const fn zh(self) -> &'static str {
        match self {
            Self::Discover => "发现",
            Self::Negotiate => "协商",
            Self::Release => "放行",
            Self::Use(action) => action.zh(),
        }
    }

    /// Whether it waits for what has to be done first: nothing leaves by a discovery or a negotiation.
    pub const fn waits(self) -> bool {
        matches!(self, Self::Release | Self::Use(_))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Discover, Self::Negotiate, Self::Release].into_iter().chain(UseAction::ALL.into_iter().map(Self::Use))
    }

    /// The action of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|action| action.as_str() == name)
    }
}
