//! One table of the search parameters: their names and types. The CapabilityStatement is made of it, too.

use super::test_token::{phone_test, split, unescaped};
use super::{
    AdministrativeGender, DateTest, IdentifierTest, MAX_PAGE, MAX_VALUES, ParameterHandling, SearchCriterion,
    SearchRequest, TextTest,
};
use crate::outcome::{Place, RequestFault};
use crate::values::LogicalId;

/// The system of the codes of gender (R4).
const GENDER_SYSTEM: &str = "http://hl7.org/fhir/administrative-gender";

/// A search parameter that is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchParameter {
    Id,
    Active,
    Family,
    Given,
    Name,
    Identifier,
    BirthDate,
    Gender,
    Address,
    City,
    PostalCode,
    Telecom,
}

impl SearchParameter {
    /// All, with their names, their types, and what they mean.
    pub(crate) const ALL: [(Self, &'static str, &'static str, &'static str); 12] = [
        (Self::Id, "_id", "token", "The logical id of the Patient"),
        (Self::Active, "active", "token", "Whether the record is in use; one that does not say so is"),
        (Self::Family, "family", "string", "The beginning of the surnames or of one of their words"),
        (Self::Given, "given", "string", "The beginning of a given name or of one of its words"),
        (Self::Name, "name", "string", "The beginning of a word of the name"),
        (Self::Identifier, "identifier", "token", "An identifier, by system, value or both"),
        (Self::BirthDate, "birthdate", "date", "The date of birth, with any prefix"),
        (Self::Gender, "gender", "token", "The administrative gender"),
        (Self::Address, "address", "string", "The beginning of a word of the city or of the postal code"),
        (Self::City, "address-city", "string", "The beginning of a word of the city"),
        (Self::PostalCode, "address-postalcode", "string", "The beginning of the postal code"),
        (Self::Telecom, "telecom", "token", "A telephone number, by its digits"),
    ];

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, ..)| *known == name).map(|(parameter, ..)| parameter)
    }

    fn takes_modifiers(self) -> bool {
        Self::ALL.into_iter().any(|(parameter, _, kind, _)| parameter == self && kind == "string")
    }
}

/// Reads one parameter into a request.
pub(super) fn read(
    request: &mut SearchRequest,
    name: &str,
    value: &str,
    handling: ParameterHandling,
) -> Result<(), RequestFault> {
    let bad = || RequestFault::BadParameter(Place::of(name));
    let (plain, modifier) = name.split_once(':').map_or((name, None), |(plain, modifier)| (plain, Some(modifier)));
    match (name, SearchParameter::of(plain)) {
        ("_count", _) => {
            let count: u32 = value.parse().map_err(|_| bad())?;
            request.count = usize::try_from(count).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        }
        ("_cursor", _) => request.cursor = Some(value.to_owned()).filter(|cursor| !cursor.is_empty()),
        ("_format", _) => request.format = Some(value.to_owned()),
        // An empty value asks for nothing.
        (_, Some(_)) if value.is_empty() && handling == ParameterHandling::Strict => return Err(bad()),
        (_, Some(_)) if value.is_empty() => request.ignored.push(Place::of(name).as_str().to_owned()),
        (_, Some(parameter)) => {
            let modified = modifier.filter(|modifier| !matches!(*modifier, "exact" | "contains"));
            if modified.is_some() || (modifier.is_some() && !parameter.takes_modifiers()) {
                return Err(RequestFault::UnknownModifier(Place::of(name)));
            }
            let criterion = criterion(parameter, modifier, value).ok_or_else(bad)?;
            request.values += split(value, ',').len();
            if request.values > MAX_VALUES {
                return Err(bad());
            }
            request.criteria.push(criterion);
            request.applied.push((name.to_owned(), value.to_owned()));
        }
        (_, None) if handling == ParameterHandling::Strict => {
            return Err(RequestFault::UnknownParameter(Place::of(name)));
        }
        (_, None) => request.ignored.push(Place::of(name).as_str().to_owned()),
    }
    Ok(())
}

/// The criterion of a parameter. `None` if its value cannot be read.
fn criterion(parameter: SearchParameter, modifier: Option<&str>, value: &str) -> Option<SearchCriterion> {
    let parts = split(value, ',');
    let texts = || -> Option<Vec<TextTest>> {
        let test = |part: &&str| TextTest::of(modifier, &unescaped(part));
        parts.iter().map(test).collect()
    };
    Some(match parameter {
        SearchParameter::Id => {
            // What is no logical id belongs to nobody.
            SearchCriterion::Id(parts.iter().filter_map(|part| LogicalId::own(&unescaped(part))).collect())
        }
        SearchParameter::Active => SearchCriterion::Active(match value {
            "true" => true,
            "false" => false,
            _ => return None,
        }),
        SearchParameter::Family => SearchCriterion::Family(texts()?),
        SearchParameter::Given => SearchCriterion::Given(texts()?),
        SearchParameter::Name => SearchCriterion::Name(texts()?),
        SearchParameter::Identifier => {
            let tests: Option<Vec<IdentifierTest>> = parts.iter().map(|part| IdentifierTest::parse(part)).collect();
            SearchCriterion::Identifier(tests?)
        }
        SearchParameter::BirthDate => {
            let tests: Option<Vec<DateTest>> = parts.iter().map(|part| DateTest::parse(part)).collect();
            SearchCriterion::BirthDate(tests?)
        }
        SearchParameter::Gender => {
            let gender = |part: &&str| match split(part, '|').as_slice() {
                [code] | [GENDER_SYSTEM, code] => AdministrativeGender::of_code(code),
                _ => None,
            };
            let genders: Option<Vec<AdministrativeGender>> = parts.iter().map(gender).collect();
            SearchCriterion::Gender(genders?)
        }
        SearchParameter::Address => SearchCriterion::Address(texts()?),
        SearchParameter::City => SearchCriterion::City(texts()?),
        SearchParameter::PostalCode => SearchCriterion::PostalCode(texts()?),
        SearchParameter::Telecom => {
            let numbers: Option<Vec<Option<String>>> = parts.iter().map(|part| phone_test(part)).collect();
            SearchCriterion::Telecom(numbers?.into_iter().flatten().collect())
        }
    })
}
