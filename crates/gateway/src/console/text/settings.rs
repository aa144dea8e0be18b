//! What every setting means, in Chinese. In English the settings' own types say it.

/// Section, key, meaning; a section's own meaning has no key.
const ABOUT: &[(&str, &str, &str)] = &[
    ("server", "", "监听地址与方式。"),
    ("server", "listen", "监听地址，写作 host:port；端口 0 表示任选空闲端口。其他机器可达的地址需要密钥与 TLS。"),
    ("server", "plain_remote", "允许在其他机器可达的地址上使用明文 HTTP，适用于前面有 TLS 代理的情形。"),
    ("server", "max_body", "请求体的最大长度。"),
    ("server", "deadline", "处理一个请求的最长时间；0s 表示不限。"),
    ("server", "drain", "收到停止信号后，正在生成的回答还可继续多久。"),
    ("server", "keep_alive", "流式输出静默多久后发送一条注释，使代理保持连接。"),
    ("server", "prompts_at_once", "一个补全请求中同时处理的提示数。"),
    ("server", "origins", "除本机之外，允许从浏览器调用的网页来源。"),
    ("server.tls", "", "监听端口的证书。"),
    ("server.tls", "certificate", "证书链（PEM 文件）；留空表示明文 HTTP。"),
    ("server.tls", "key", "证书的私钥（PEM 文件）。"),
    ("models", "", "本进程运行的模型。"),
    ("models", "chat", "生成文本的模型。若为空且没有上游和工作进程，`tessera up` 与 `serve` 使用默认模型。"),
    ("models", "embed", "把文本变成向量的模型。"),
    ("engine", "", "本进程的模型如何运行。"),
    ("engine", "threads", "计算线程数；0 表示每个核心一个。"),
    ("engine", "kv_memory", "键值缓存的内存，含前缀缓存；用到时才占用。"),
    ("engine", "max_sequences", "同时生成的回答数；更多的请求排队等待。"),
    ("engine", "max_queue", "可排队的请求数；再多则以 429 拒绝。"),
    ("engine", "prefix_cache", "保留可能再次出现的提示的计算结果。"),
    ("auth", "", "谁可以做什么。"),
    ("auth", "required", "在创建第一个密钥之前就要求密钥；一旦有密钥，总是要求。"),
    ("auth.oidc", "", "除密钥之外，身份提供方签发的令牌。"),
    ("auth.oidc", "issuer", "签发者（声明 `iss`）；留空表示不接受令牌。"),
    ("auth.oidc", "audience", "令牌的受众（声明 `aud`）。"),
    ("auth.oidc", "jwks", "签发者的公钥：文件或 URL；留空则查询签发者的 `.well-known/openid-configuration`。"),
    ("auth.oidc", "refresh", "签发者的公钥使用多久后重新获取。"),
    ("auth.oidc", "tenant_claim", "给出租户的声明；点号进入下一层对象。"),
    ("auth.oidc", "role_claim", "给出角色（或角色、组的列表）的声明；取其中权限最大的。"),
    ("auth.oidc", "roles", "声明的值在此对应的角色；一个都不对应的令牌被拒绝。"),
    ("limits", "", "一个密钥可使用多少服务；密钥自己的限额优先，0 表示不限。"),
    ("limits", "requests_per_minute", "每分钟请求数。"),
    ("limits", "tokens_per_minute", "每分钟 token 数，提示与回答合计。先按估计扣除，完成后按差额结算。"),
    ("limits", "in_flight", "整个服务器同时处理的请求数；再多则以 429 拒绝。"),
    ("limits", "assumed_answer", "请求没有给出上限时，假定回答的 token 数。"),
    ("guard", "", "什么可以进来，什么可以出去。"),
    ("guard", "terms", "自定义的词语列表，按名称。"),
    ("guard", "patterns", "自定义的正则表达式，按名称。"),
    ("guard", "models", "就每段文本向模型提出的问题，按名称。每个问题需要一次调用。"),
    ("guard.personal", "", "银行卡、账户、邮箱、电话、证件号，以及 API 密钥等秘密。"),
    ("guard.personal", "input", "`kinds` 未列出的各类输入数据。取 \"allow\"、\"monitor\"、\"mask\"、\"block\" 之一。"),
    ("guard.personal", "output", "`kinds` 未列出的各类输出数据。取 \"allow\"、\"monitor\"、\"mask\"、\"block\" 之一。"),
    ("guard.personal", "kinds", "需要单独处理的类别。"),
    ("guard.injection", "", "试图推翻模型指令的内容。"),
    ("guard.injection", "input", "如何处理输入。取 \"allow\"、\"monitor\"、\"mask\"、\"block\" 之一。"),
    ("guard.injection", "output", "如何处理输出。取 \"allow\"、\"monitor\"、\"mask\"、\"block\" 之一。"),
    ("guard.injection", "threshold", "一段文本中权重之和达到多少即算命中，须大于 0。越低找到越多，误报也越多。"),
    ("guard.toxicity", "", "侮辱、仇恨与威胁。"),
    ("guard.toxicity", "input", "如何处理输入。取 \"allow\"、\"monitor\"、\"mask\"、\"block\" 之一。"),
    ("guard.toxicity", "output", "如何处理输出。取 \"allow\"、\"monitor\"、\"mask\"、\"block\" 之一。"),
    ("guard.toxicity", "threshold", "概率达到多少即算命中。"),
    ("guard.labels", "", "如何标明内容由模型生成。"),
    ("guard.labels", "visible", "在生成文本末尾加一行说明。"),
    ("guard.labels", "metadata", "在生成文本旁加响应头 x-aigc，在生成的 PNG 图像中加一个文本块。"),
    ("tenants", "", "一个租户可使用多少，按租户名称。"),
    ("tenants", "requests_per_minute", "每分钟请求数。"),
    ("tenants", "tokens_per_minute", "每分钟 token 数，提示与回答合计。"),
    ("tenants", "budget", "一个周期内可花费的金额，单位与价格相同；`\"0.00\"` 表示不限。"),
    ("tenants", "token_budget", "一个周期内可使用的 token 数。"),
    ("tenants", "period", "两种预算的周期。取 \"day\"、\"month\"、\"total\" 之一。"),
    ("tenants", "models", "可使用的模型；空列表表示全部。"),
    ("prices", "", "模型的价格，按模型名称；没有价格的模型不收费。"),
    ("prices", "input", "提示的 token。"),
    ("prices", "cached", "来自缓存的提示 token；`\"0.00\"` 表示与其他提示同价。"),
    ("prices", "output", "回答的 token。"),
    ("conversions", "", "以反馈形式报告的转化（`POST /v1/feedback`）如何收费：按价值的比例，或按固定金额。"),
    ("conversions", "name", "反馈中所用的名称。"),
    ("conversions", "share", "每单位价值收取多少，至多六位小数：`\"0.02\"` 表示百分之二。"),
    ("conversions", "amount", "不论价值，每次收取的金额；与比例二者取一。"),
    ("conversions", "window", "请求之后多久内的转化计费。"),
    ("conversions", "cap", "一次转化至多收取的金额；`\"0.00\"` 表示不限。"),
    ("ledger", "", "记录、用量与密钥保存在哪里。"),
    ("ledger", "url", "`sqlite:PATH` 或 `postgres://..`；留空表示用户数据目录中的 SQLite 文件。"),
    ("ledger", "key_file", "为检查点签名的密钥文件；留空表示用户配置目录中的文件。"),
    ("ledger", "flush", "记录积累多久后一起写入磁盘。"),
    ("ledger", "retention", "封存的记录内容保留多久，例如 \"180d\"；0s 表示永久保留。日志本身不受影响。"),
    ("ledger", "currency", "价格与预算的货币，三个字母。"),
    ("upstreams", "", "别处的服务：任何兼容 OpenAI 的地址，以及 Anthropic。"),
    ("upstreams", "name", "在路由、指标与记录中的名称。"),
    ("upstreams", "url", "基础地址，如 `http://gpu-1:8000/v1`。"),
    ("upstreams", "api", "使用的接口。取 \"openai\"、\"anthropic\" 之一。"),
    ("upstreams", "key", "请求时使用的密钥，如 `${OPENAI_API_KEY}`。"),
    ("upstreams", "models", "由它提供的模型：此处的名称，以及那里的名称。"),
    ("upstreams", "embed_models", "由它提供的向量模型，写法相同。"),
    ("upstreams", "image_models", "由它提供的图像模型，写法相同。"),
    (
        "upstreams",
        "capabilities",
        "其文本模型的能力；空列表表示此类服务通常具备的能力。未列出的会被指名拒绝，或以其他方式完成。",
    ),
    ("upstreams", "connect_timeout", "建立连接的最长时间。"),
    ("upstreams", "first_byte_timeout", "等待第一个字节的最长时间；0s 表示一直等待。"),
    ("upstreams", "timeout", "整个回答的最长时间；0s 表示不限。"),
    ("upstreams", "retries", "在第一个字节之前失败的请求重试的次数。"),
    ("upstreams", "breaker_failures", "最近二十个请求中失败达到此数且至少占一半时，暂停使用它。"),
    ("upstreams", "breaker_pause", "届时暂停多久。"),
    ("workers", "", "别处的本项目工作进程（`tessera serve --only text`）。"),
    ("workers", "url", "基础地址，如 `http://10.0.0.2:9090`。"),
    ("workers", "secret", "双方都知道的秘密。"),
    ("routes", "", "代表若干模型之一的名称。"),
    ("routes", "model", "请求所用的名称。"),
    ("routes", "targets", "它所代表的模型，用此处的名称。"),
    ("routes", "strategy", "如何选择。取 \"fallback\"、\"balance\" 之一。"),
    (
        "rollouts",
        "",
        "代表若干版本的名称，每个版本服务一部分调用方。调用方（请求所指的最终用户，否则为密钥）在权重不变时始终使用同一版本。还可以根据表现逐步放行一个新版本。",
    ),
    ("rollouts", "model", "请求所用的名称，可与某个版本同名。"),
    ("rollouts", "versions", "各版本（模型、带适配器的模型或路由，用此处的名称）及其权重。"),
    (
        "rollouts",
        "tolerated_failures",
        "与服务调用方最多的版本相比，其他版本的失败率可高出多少（占其请求的比例）仍算正常。",
    ),
    ("rollouts", "tolerated_wait", "其调用方等待回答开头的时间可多出多少。"),
    ("rollouts", "tolerated_blocks", "其回答被护栏拦截的比例可高出多少。"),
    ("rollouts", "tolerated_cost", "其请求的费用可高出多少（占对照费用的比例）；各按自己模型的价格计算。"),
    ("rollouts", "tolerated_quality", "其回答的评分（满分 1）可低多少。"),
    ("rollouts", "canary", "在上述权重之外逐步放行的新版本；留空表示没有。"),
    ("rollouts", "steps", "逐步得到它的调用方百分比；最后一步为 100。"),
    ("rollouts", "hold", "每一步至少停留的时间。"),
    ("rollouts", "hold_requests", "每一步新版本至少处理的请求数。"),
    ("rollouts", "patience", "每一步至多停留的时间；届时仍无结论则暂停。0s 表示一直等待。"),
    ("rollouts", "shadow", "收到同样请求的模型；其回答只用于比较和计数，不会交给任何人。留空表示没有。"),
    ("rollouts", "shadow_share", "向它镜像的请求比例，0 到 1。"),
    ("rollouts", "shadow_at_once", "同时镜像的请求数；其间到来的不镜像。"),
    ("rollouts", "shadow_tokens_per_hour", "每小时可使用的 token 数，提示与回答合计；0 表示不限。"),
    ("rollouts", "shadow_timeout", "它的一个回答最多可用的时间。"),
    (
        "cascades",
        "",
        "代表两个模型的名称：小模型对自己的回答把握足够时由它回答，否则由大模型回答。两者都可以是模型、带适配器的模型、路由或灰度发布。",
    ),
    ("cascades", "model", "请求和计费所用的名称，可与大模型同名。"),
    ("cascades", "student", "先回答的小模型，用此处的名称。"),
    ("cascades", "teacher", "小模型的回答不可用时回答的大模型。"),
    ("cascades", "calibration", "`tessera eval cascade` 写出的文件：阈值、其度量以及所适用的小模型。"),
    ("cascades", "threshold", "没有校准文件时：最不可能的 token 的概率高于此值的回答被采用；1 表示都不采用。"),
    ("cascades", "schema", "JSON schema 文件，小模型的回答无论请求如何都须符合；留空表示没有。"),
    ("cascades", "decision", "以小模型的回答（JSON 对象）为事实的决策，其输出须有 `accepted: true`；留空表示没有。"),
    ("cascades", "on_failure", "需要大模型而它失败时调用方得到什么。取 \"error\"、\"student\" 之一。"),
    ("cascades", "student_timeout", "小模型最多可用的时间；0s 表示不限。"),
    ("tracing", "", "发送到 OpenTelemetry 收集器的跟踪。"),
    ("tracing", "otlp", "收集器的 OTLP 地址（HTTP），如 `http://127.0.0.1:4318/v1/traces`；留空则不发送。"),
    ("tracing", "sample", "被跟踪的请求所占比例，0 到 1。"),
    ("tracing", "service", "本服务在那里的名称。"),
];

/// What a key of a section means, or the section itself where no key is named; sections are called as in the file: `[[upstreams]]`.
pub(in crate::console) fn about(header: &str, key: &str) -> Option<&'static str> {
    let name = header.trim_matches(['[', ']']);
    // Tables that bear names of the user's own.
    let kind = name.split('.').next().filter(|kind| matches!(*kind, "tenants" | "prices"));
    let section = kind.unwrap_or(name);
    ABOUT.iter().find(|(s, k, _)| (*s, *k) == (section, key)).map(|(.., about)| *about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn every_setting_is_explained_and_nothing_else() {
        let sections = Settings::default().sections(true);
        let mut explained = 0;
        for section in &sections {
            for key in section.keys.iter().map(|key| key.name.as_str()).chain([""]) {
                assert!(about(&section.header, key).is_some(), "{} {key}", section.header);
                explained += 1;
            }
        }
        assert_eq!(explained, ABOUT.len());
    }
}
