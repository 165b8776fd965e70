//! Every question about small files.

use fedgate_core::policy::{EndpointTable, Method, PolicyReach, RoleRights};

use super::oracle::{Answer, Ask};
use super::pair::Pair;

const METHODS: [&str; 2] = ["GET", "POST"];
const ENDPOINTS: [&str; 2] = ["page", "people"];
const GLOBALS: [&str; 6] =
    ["\"True\"", "\"False\"", "true", "false", "\"False\", \"related\": \"True\"", "true, \"related\": true"];
/// No file defines the last.
const ROLES: [&str; 3] = ["a", "b", "undefined"];

/// An entry's permissions: every set of (method, endpoint), with every spelling of `global`, and with `related`.
fn permissions() -> Vec<String> {
    let mut all = Vec::new();
    for set in 0..16_usize {
        let listed = |method: usize| -> Vec<String> {
            (0..2)
                .filter(|endpoint| set >> (method * 2 + endpoint) & 1 == 1)
                .map(|it| format!("{:?}", ENDPOINTS[it]))
                .collect()
        };
        for global in GLOBALS {
            let lists: String = (0..2).map(|it| format!("{:?}: [{}], ", METHODS[it], listed(it).join(", "))).collect();
            all.push(format!("{{{lists}\"global\": {global}}}"));
        }
    }
    all
}

/// The same, without keys that list nothing.
fn without_empty_lists(permissions: &str) -> String {
    permissions.replace("\"GET\": [], ", "").replace("\"POST\": [], ", "")
}

fn entry(role: &str, permissions: &str) -> String {
    format!("{{\"role\": {role:?}, \"permissions\": {permissions}}}")
}

fn role_lists() -> Vec<Vec<String>> {
    let mut lists = vec![Vec::new()];
    for first in ROLES {
        lists.push(vec![first.to_owned()]);
        lists.extend(ROLES.map(|second| vec![first.to_owned(), second.to_owned()]));
    }
    lists
}

/// Asks every question, and counts each answer.
fn ask_everything(file: &str, counts: &mut [u64; 7]) {
    let mut table = EndpointTable::default();
    let related = ["EVA".to_owned()];
    let numbers = ENDPOINTS.map(|name| table.intern(name).unwrap());
    let pair = Pair::read(file.as_bytes(), &"exhaustive").unwrap_or_else(|| panic!("refused: {file}"));
    for roles in role_lists() {
        let rights = RoleRights::compile(&pair.engine, &roles, &table);
        for method in ["GET", "HEAD", "POST"] {
            for (endpoint, number) in ENDPOINTS.into_iter().zip(numbers) {
                for principal in ["ANA", "BOB"] {
                    for subject in [None, Some("ANA"), Some("BOB"), Some("EVA")] {
                        let ask = Ask { principal, roles: &roles, method, endpoint, subject, related: &related };
                        let answer = pair.ask(&rights, &table, &ask, &"exhaustive");
                        counts[Answer::ALL.iter().position(|it| *it == answer).unwrap()] += 1;
                        if subject.is_none() {
                            let reach = rights.reach(Method::parse(method).unwrap(), number);
                            assert_eq!(reach, reach_of(answer), "{ask:?} under {file}");
                        }
                    }
                }
            }
        }
    }
}

/// The reach of rights that give this answer to a question without a subject.
fn reach_of(answer: Answer) -> Option<PolicyReach> {
    match answer {
        Answer::Global => Some(PolicyReach::Global),
        Answer::Related => Some(PolicyReach::Related),
        Answer::Own => Some(PolicyReach::Own),
        Answer::NoMethod | Answer::NoRole | Answer::NotGranted | Answer::NotOwn => None,
    }
}

/// Asks every question about every file, half of them on another thread.
fn ask_about_all(files: &[String]) -> [u64; 7] {
    let counts = |files: &[String]| {
        let mut counts = [0; 7];
        files.iter().for_each(|file| ask_everything(file, &mut counts));
        counts
    };
    let (some, others) = files.split_at(files.len() / 2);
    let (some, others) = std::thread::scope(|scope| {
        let other_thread = scope.spawn(|| counts(others));
        (counts(some), other_thread.join().unwrap())
    });
    std::array::from_fn(|it| some[it] + others[it])
}

#[test]
fn every_question_about_every_policy_of_one_role_is_answered_as_described() {
    let mut files = Vec::new();
    for permissions in permissions() {
        files.push(format!("[{}]", entry("a", &permissions)));
        files.push(format!("[{}]", entry("a", &without_empty_lists(&permissions))));
    }
    let counts = ask_about_all(&files);
    println!("{} policies, {:?} {counts:?}", files.len(), Answer::ALL);
    assert_eq!((files.len(), counts.iter().sum()), (2 * 16 * 6, 192 * 13 * 3 * 2 * 2 * 4));
}

#[test]
fn every_question_about_every_policy_of_two_roles_is_answered_as_described() {
    let permissions = permissions();
    let mut files = Vec::new();
    for second_role in ["a", "b"] {
        for first in &permissions {
            for second in &permissions {
                files.push(format!("[{}, {}]", entry("a", first), entry(second_role, &without_empty_lists(second))));
            }
        }
    }
    let counts = ask_about_all(&files);
    println!("{} policies, {:?} {counts:?}", files.len(), Answer::ALL);
    assert_eq!((files.len(), counts.iter().sum()), (2 * 96 * 96, 18_432 * 13 * 3 * 2 * 2 * 4));
    assert!(counts[1..].iter().all(|count| *count > 10_000), "every answer is given often");
}
