#!/usr/bin/env python3
"""Generates people with Spanish, Portuguese and Arabic names, some of whom are recorded twice with errors.

python3 benches/people.py PEOPLE SEED > people.csv. The column `person` says who a record is of; the index never reads it.
Among the people are twins, brothers and sisters at one address, and fathers and sons of one name. No person is real.
"""

import csv
import random
import sys

WOMEN = """María Carmen Ana Isabel Laura Lucía Marta Elena Pilar Rosa Cristina Paula Teresa Sofía Julia Raquel Beatriz Silvia
Inês Joana Catarina Mariana Leonor Matilde Fátima Khadija Aicha Maryam Zaynab Salma Nadia Samira Amina Layla Huda
Natalia Ekaterina Olga""".split()
MEN = """José Antonio Manuel Francisco Juan David Javier Daniel Carlos Jesús Alejandro Miguel Rafael Pedro Pablo Ángel Sergio
João Tiago Rui Nuno Gonçalo Duarte Mohammed Ahmed Youssef Hassan Hussein Ali Omar Khalid Ibrahim Mustafa Abdullah Tariq
Rachid Dmitri Sergei Mikhail""".split()
IBERIAN = """García Rodríguez González Fernández López Martínez Sánchez Pérez Gómez Martín Jiménez Hernández Ruiz Díaz Moreno
Álvarez Muñoz Romero Alonso Gutiérrez Navarro Torres Domínguez Vázquez Ramos Gil Ramírez Serrano Blanco Molina Morales
Suárez Ortega Delgado Castro Ortiz Rubio Marín Sanz Iglesias Núñez Medina Garrido Cortés Castillo Santos Lozano Guerrero
Cano Prieto Méndez Cruz Gallego Vidal León Herrera Márquez Peña Cabrera Flores Campos Vega Fuentes Carrasco Diez Reyes
Caballero Nieto Aguilar Pascual Herrero Santana Lorenzo Hidalgo Montero Ibáñez Giménez Ferrer Durán Vicente Benítez Mora
Santiago Arias Vargas Carmona Crespo Román Pastor Soto Sáez Velasco Soler Moya Esteban Parra Bravo Gallardo Rojas Silva
Ferreira Oliveira Pereira Costa Rodrigues Martins Sousa Gonçalves Gomes Lopes Marques Almeida Ribeiro Pinto Carvalho
Teixeira Moreira Correia Mendes Nunes Soares Vieira Monteiro Cardoso Rocha Neves Coelho Zubizarreta Etxeberria
Goikoetxea Urrutia Mendizábal Arrizabalaga Puigdomènech Casadevall""".split()
ARABIC = """Haddad Khoury Mansour Nasser Saleh Hamdan Khalil Najjar Sabbagh Darwish Qasim Aziz Rahman Bakr Fadel Ghanem Halabi
Jaber Karam Lahham Masri Nassar Othman Rashed Sayegh Tamimi Wahab Yassin Zahra Amrani Bennani Cherkaoui Idrissi Tazi Alaoui
Benali Belkacem Bouazza Chraibi Fassi""".split()
# Spellings of one name, as different clerks write them; the last ones in Arabic or Cyrillic letters.
SPELLINGS = [
    group.split()
    for group in """Mohammed Muhammad Mohamed Mohamad محمد
Ahmed Ahmad Ahmet أحمد
Youssef Yusuf Yousef يوسف
Hassan Hasan حسن
Hussein Husain Hussain حسين
Khalid Khaled Jalid خالد
Fátima Fatma Fatimah فاطمة
Aicha Aisha Ayesha
Khadija Jadiya Khadidja
Mustafa Mostafa Moustapha
Ibrahim Brahim Ebrahim
Abdullah Abdallah Abdulla
Omar Umar عمر
Tariq Tarek Tarik
Rachid Rashid رشيد
Zaynab Zeinab Zineb زينب
Dmitri Dmitry Дмитрий
Sergei Sergey Сергей
Mikhail Michail Михаил
Natalia Natalya Наталья
Ekaterina Yekaterina Екатерина
González Gonzales Glez
Fernández Fdez Fernandes
Rodríguez Rguez Rodrigues
Jiménez Giménez Ximénez
Hernández Hdez Ernández
Vázquez Vásquez Bázquez
Gonçalves Gonsalves
Haddad Hadad حداد
Khoury Khouri Khuri
Mansour Mansur منصور
Saleh Salih صالح""".splitlines()
]
SPELLED = {name: [other for other in group if other != name] for group in SPELLINGS for name in group}
CITIES = """Málaga:29 Sevilla:41 Granada:18 Córdoba:14 Cádiz:11 Lugo:27 Vigo:36 Bilbao:48 Zaragoza:50 Valencia:46 Murcia:30
Toledo:45 Lisboa:10 Porto:40 Braga:47 Faro:80 Ceuta:51 Melilla:52 Tetuán:93 Tánger:90""".split()
PLACES = [
    (part + city.split(":")[0], f"{city.split(':')[1]}{code:03d}")
    for city in CITIES
    for part in ("", "San Pedro de ", "Villanueva de ")
    for code in range(1, 13)
]
COLUMNS = "source,id,person,given,family,birth_date,gender,city,postal_code,phone".split(",")


class Town:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.people = 0

    def pick(self, names):
        """A frequent name is chosen more often: Zipf's law."""
        return self.random.choices(names, [1 / (place + 3) for place in range(len(names))])[0]

    def surnames(self):
        kind = self.random.random()
        if kind < 0.7:
            joined = self.random.choice([" ", " ", " ", " y ", " de ", "-"])
            return self.pick(IBERIAN) + joined + self.pick(IBERIAN)
        if kind < 0.8:
            return self.random.choice(["da ", "de ", "dos ", ""]) + self.pick(IBERIAN)
        return self.random.choice(["Al-", "El ", "Ben ", ""]) + self.pick(ARABIC)

    def given(self, gender):
        names = WOMEN if gender == "f" else MEN
        second = " " + self.pick(names) if self.random.random() < 0.4 else ""
        return self.pick(names) + second

    def household(self):
        city, code = self.random.choice(PLACES)
        return {"city": city, "postal_code": code, "phone": "9" + "".join(self.random.choices("0123456789", k=8))}

    def person(self, **known):
        self.people += 1
        gender = known.get("gender") or self.random.choice("fm")
        year = self.random.randint(1930, 2020)
        born = f"{year}-{self.random.randint(1, 12):02d}-{self.random.randint(1, 28):02d}"
        # Where the day is not known, clerks write the first of January.
        born = f"{year}-01-01" if self.random.random() < 0.05 else born
        new = {"person": self.people, "gender": gender, "birth_date": born, "given": self.given(gender)}
        new |= {"family": self.surnames()} | self.household() | known
        return new

    def relatives(self, person):
        kind = self.random.random()
        home = {key: person[key] for key in ("family", "city", "postal_code", "phone")}
        if kind < 0.02:
            twin = self.person(**home, birth_date=person["birth_date"])
            while set(twin["given"].split()) & set(person["given"].split()):
                twin["given"] = self.given(twin["gender"])
            yield twin
        elif kind < 0.12:
            yield self.person(**home)
        elif kind < 0.15:
            yield self.person(**home, given=person["given"], gender=person["gender"])

    def mistype(self, text):
        if len(text) < 3:
            return text
        at = self.random.randrange(1, len(text) - 1)
        sign = self.random.choice("0123456789" if text[at].isdigit() else "aeiorstnlm")
        kinds = [text[:at] + text[at + 1 :], text[:at] + sign + text[at:], text[:at] + sign + text[at + 1 :]]
        return self.random.choice([*kinds, text[:at] + text[at + 1] + text[at] + text[at + 2 :]])

    def error(self, record):
        """One error of a clerk, in the record."""
        year, month, day = (record["birth_date"] or "1980-05-05").split("-")
        names = record["given"].split(" "), record["family"].split(" ")

        def respell(words):
            return " ".join(self.random.choice(SPELLED[word]) if word in SPELLED else word for word in words)

        home = self.household()
        change = self.random.choices(
            [
                {"given": self.mistype(record["given"])},
                {"family": self.mistype(record["family"])},
                {"given": names[0][0]},
                {"family": " ".join(names[1][:-1]) or record["family"]},
                {"given": respell(names[0]), "family": respell(names[1])},
                {"given": record["given"].upper(), "family": record["family"].upper()},
                {"given": record["family"], "family": record["given"]},
                {"birth_date": f"{year}-{day}-{month}" if int(day) <= 12 else record["birth_date"]},
                {"birth_date": f"{year}-{month}-{self.mistype(day + '0')[:2]}"},
                {"birth_date": f"{year}-01-01"},
                {"birth_date": ""},
                {"city": home["city"], "postal_code": home["postal_code"]},
                {"postal_code": self.mistype(record["postal_code"])},
                {"phone": home["phone"]},
                {"phone": ""},
                {"city": "", "postal_code": ""},
                {"gender": ""},
                {"family": self.surnames()},
            ],
            [10, 10, 8, 10, 14, 6, 2, 3, 5, 3, 3, 12, 4, 12, 8, 6, 4, 1],
        )[0]
        return record | change


def main():
    people, seed = int(sys.argv[1]), int(sys.argv[2])
    town = Town(seed)
    records = []
    while town.people < people:
        person = town.person()
        for known in [person, *town.relatives(person)]:
            records.append(known)
            if town.random.random() < 0.3:
                copy = known
                for _ in range(town.random.choice([0, 1, 1, 2, 2, 3])):
                    copy = town.error(copy)
                records.append(copy)
    town.random.shuffle(records)
    out = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    out.writeheader()
    out.writerows({"source": "", "id": number, **record} for number, record in enumerate(records))


if __name__ == "__main__":
    main()
