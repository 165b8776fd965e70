//! Names that are spelled in many ways: one standard spelling for each.
//!
//! The list has names whose spellings differ by more than a typing error, mostly because other scripts are written in
//! Latin letters. Short forms of given names (`Pepe` for `José`) are here where they are the same name to everybody.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A standard spelling, and the others, folded.
const SPELLINGS: &[(&str, &str)] = &[
    (
        "muhammad",
        "mohammed mohamed mohammad mohamad muhammed muhamad mahomed mohamud mehmet mehmed mhmd mahamadou mamadou",
    ),
    ("ahmad", "ahmed ahmet achmed ahmd akhmed"),
    ("mahmud", "mahmoud mahmood mahmut mhmwd"),
    ("yusuf", "youssef yousef yousuf yusef youcef iusuf ywsf yussuf josef"),
    ("ibrahim", "ebrahim ibraheem brahim abrhym"),
    ("husayn", "hussein hussain husain hossein hossain husein houssein hsyn huseyin"),
    ("hasan", "hassan hacen hsn khasan"),
    ("ali", "aly"),
    ("umar", "omar omer oumar amr"),
    ("uthman", "osman othman usman ousmane"),
    ("khalid", "khaled kaled halid khld"),
    ("abdullah", "abdallah abdulla abdoulaye abdellah bdllh"),
    ("abdulrahman", "abdurrahman abderrahman abdelrahman abdurahman abderrahmane"),
    ("fatima", "fatma fatimah fatema fatoumata ftma fatimata"),
    ("aisha", "aicha ayesha aysha aysche aissatou"),
    ("khadija", "khadijah hadija khadidja jadiya"),
    ("maryam", "mariam meryem meriem miriam myriam"),
    ("zaynab", "zainab zeinab zineb zeynep zynb"),
    ("said", "saeed sayeed saied syd"),
    ("sulayman", "suleiman soleiman sulaiman suleyman souleymane solomon"),
    ("tariq", "tarek tarik tareq"),
    ("rashid", "rachid rasheed rasched"),
    ("jamal", "gamal djamel jamel djamal"),
    ("mustafa", "mostafa moustafa mustapha mostapha moustapha"),
    ("abdul", "abdel abdal abdou"),
    ("nur", "noor nour nora"),
    ("amina", "aminah amine aminata"),
    ("salih", "saleh salah"),
    ("isa", "issa eissa"),
    ("musa", "moussa mousa moosa"),
    ("dawud", "daoud dawood daud"),
    ("ismail", "ismael esmail ismaeel smail"),
    ("rahman", "rehman rahmane"),
    ("hussayni", "husseini hosseini hussaini"),
    ("aleksandr", "alexander alexandr aleksander alejandro alexandre aliaksandr oleksandr"),
    ("aleksei", "alexei alexey aleksey oleksii"),
    ("sergei", "sergey serhii serguei sergio"),
    ("dmitri", "dmitry dmitrii dmytro dimitri dmitriy"),
    ("yuri", "yury iurii yurii juri"),
    ("natalia", "nataliya natalya nataliia natalja nathalie"),
    ("yulia", "julia iuliia yuliya juliya"),
    ("tatiana", "tatyana tetiana tatjana"),
    ("ekaterina", "yekaterina katerina kateryna catalina"),
    ("evgeni", "yevgeny evgeny evgenii yevhen eugeny"),
    ("mikhail", "michail mihail mykhailo miguel michael"),
    ("nikolai", "nikolay mykola nicolai nicolas"),
    ("vladimir", "volodymyr wladimir uladzimir"),
    ("ivan", "iwan"),
    ("jose", "pepe josep xose"),
    ("francisco", "paco pancho kiko"),
    ("maria", "mari marya mariya"),
    ("juan", "joan xoan"),
    ("jorge", "xurxo jordi"),
    ("luis", "luiz lluis"),
    ("fernandez", "fdez fernandes"),
    ("gonzalez", "glez gonzales gonsales gonsalves goncalves"),
    ("rodriguez", "rguez rodrigues rodrigez"),
    ("martinez", "mtnez mtez martines"),
    ("hernandez", "hdez hernandes ernandez"),
    ("perez", "pz peres"),
    ("lopez", "lopes"),
    ("sanchez", "schez sanches"),
    ("jimenez", "gimenez ximenez jimenes"),
    ("alvarez", "alvares"),
    ("gomez", "gomes"),
    ("diaz", "dias"),
    ("ramirez", "ramires"),
    ("suarez", "soares"),
    ("catherine", "katherine kathryn catharine kathrin"),
    ("elizabeth", "elisabeth elisabet isabel"),
    ("steven", "stephen stefan esteban"),
    ("geoffrey", "jeffrey jeffery"),
    ("philip", "phillip felipe philippe"),
    ("schmidt", "schmitt schmid"),
];

static STANDARD: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    SPELLINGS.iter().flat_map(|(standard, others)| others.split(' ').map(move |other| (other, *standard))).collect()
});

/// The standard spelling of a word that is one of the others.
pub(super) fn standard_spelling(word: &str) -> Option<&'static str> {
    STANDARD.get(word).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_belongs_to_one_name() {
        let mut seen = std::collections::BTreeSet::new();
        for (standard, others) in SPELLINGS {
            for word in std::iter::once(*standard).chain(others.split(' ')) {
                assert!(seen.insert(word), "`{word}` occurs twice");
            }
        }
        assert!(seen.len() > 200);
    }

    #[test]
    fn every_spelling_is_a_folded_word() {
        for (standard, others) in SPELLINGS {
            for word in std::iter::once(*standard).chain(others.split(' ')) {
                assert_eq!(crate::fold::folded_words(word), [word], "of `{standard}`");
            }
        }
    }
}
