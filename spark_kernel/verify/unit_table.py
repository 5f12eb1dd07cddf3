"""The units that are known, as factors of a base unit of their dimension. Data only; `units` reads with it.

A word may have several readings: a pound is a mass or money, a cent belongs to the dollar or the euro.
"""

from __future__ import annotations

from fractions import Fraction

from spark_kernel.verify.word_lists import words

LINES = """
metre | length | 1 | m meter meters metre metres 米
decimetre | length | 1/10 | dm decimeter decimeters decimetre decimetres 分米
centimetre | length | 1/100 | cm centimeter centimeters centimetre centimetres cms 厘米
millimetre | length | 1/1000 | mm millimeter millimeters millimetre millimetres 毫米
micrometre | length | 1/1000000 | um µm \\mum micrometer micrometers micrometre micrometres micron microns 微米
nanometre | length | 1/1000000000 | nm nanometer nanometers nanometre nanometres 纳米
kilometre | length | 1000 | km kilometer kilometers kilometre kilometres kms 千米 公里
inch | length | 127/5000 | in inch inches
foot | length | 381/1250 | ft foot feet
yard | length | 1143/1250 | yd yard yards
mile | length | 201168/125 | mi mile miles
gram | mass | 1 | g gram grams gm gms 克
kilogram | mass | 1000 | kg kilogram kilograms kgs kilo kilos 千克 公斤
milligram | mass | 1/1000 | mg milligram milligrams 毫克
tonne | mass | 1000000 | tonne tonnes 吨
pound | mass | 45359237/100000 | lb lbs pound pounds
ounce | mass | 45359237/1600000 | oz ounce ounces
second | time | 1 | s sec secs second seconds 秒 秒钟
millisecond | time | 1/1000 | ms millisecond milliseconds 毫秒
minute | time | 60 | min mins minute minutes 分钟
hour | time | 3600 | h hr hrs hour hours 小时 时
day | time | 86400 | day days 天 日
week | time | 604800 | week weeks wk wks 周 星期
month | calendar | 1 | month months mo 月 个月
year | calendar | 12 | year years yr yrs 年
litre | length^3 | 1/1000 | L l liter liters litre litres 升
millilitre | length^3 | 1/1000000 | mL ml milliliter milliliters millilitre millilitres cc 毫升
centilitre | length^3 | 1/100000 | cL cl centiliter centiliters centilitre centilitres
hectare | length^2 | 10000 | ha hectare hectares 公顷
acre | length^2 | 316160658/78125 | acre acres
gallon | gallon | 1 | gal gallon gallons
quart | gallon | 1/4 | qt quart quarts
pint | gallon | 1/8 | pt pint pints
cup | gallon | 1/16 | cup cups
mph | length^1 time^-1 | 1397/3125 | mph
kph | length^1 time^-1 | 5/18 | kph kmh kmph
degree | degree | 1 | deg degree degrees \\circ circ ^\\circ 度
radian | radian | 1 | rad rads radian radians 弧度
newton | force | 1 | N newton newtons 牛 牛顿
kilonewton | force | 1000 | kN
joule | energy | 1 | J joule joules 焦 焦耳
kilojoule | energy | 1000 | kJ kilojoule kilojoules
calorie | calorie | 1 | cal calorie calories
kilocalorie | calorie | 1000 | kcal
electronvolt | electronvolt | 1 | eV
watt | power | 1 | W watt watts 瓦
kilowatt | power | 1000 | kW kilowatt kilowatts 千瓦
volt | voltage | 1 | V volt volts 伏
ampere | current | 1 | A amp amps ampere amperes 安
milliampere | current | 1/1000 | mA
ohm | resistance | 1 | \\Omega ohm ohms 欧
pascal | pressure | 1 | Pa pascal pascals 帕
kilopascal | pressure | 1000 | kPa
hertz | frequency | 1 | Hz hertz 赫兹
kilohertz | frequency | 1000 | kHz
mole | amount | 1 | mol mole moles 摩尔
kelvin | kelvin | 1 | K kelvin kelvins
celsius | celsius | 1 | C celsius ^\\circC \\circC °C 摄氏度
fahrenheit | fahrenheit | 1 | F fahrenheit ^\\circF \\circF
dollar | dollar | 1 | $ \\$ US$ USD dollar dollars buck bucks 美元
cent | dollar | 1/100 | cent cents ¢ \\cent penny pennies
dime | dollar | 1/10 | dime dimes
nickel | dollar | 1/20 | nickel nickels
euro | euro | 1 | € EUR euro euros 欧元
eurocent | euro | 1/100 | cent cents
sterling | sterling | 1 | £ GBP pound pounds quid 英镑
penny | sterling | 1/100 | pence penny pennies
yen | yen | 1 | ¥ JPY yen 日元
yuan | yuan | 1 | ¥ CNY RMB yuan renminbi 元 块 人民币
jiao | yuan | 1/10 | jiao 角
fen | yuan | 1/100 | fen 分
rupee | rupee | 1 | ₹ INR Rs Rs. rupee rupees 卢比
paisa | rupee | 1/100 | paise paisa
won | won | 1 | ₩ KRW won
rouble | rouble | 1 | ₽ RUB ruble rubles rouble roubles
franc | franc | 1 | CHF franc francs
peso | peso | 1 | MXN peso pesos
shekel | shekel | 1 | ₪ ILS shekel shekels
"""

Dimensions = tuple[tuple[str, int], ...]
Reading = tuple[Dimensions, Fraction]


def _dimensions(text: str) -> Dimensions:
    parts = (part.partition("^") for part in text.split())
    return tuple(sorted((name, int(power or 1)) for name, _, power in parts))


def _table() -> dict[str, tuple[Reading, ...]]:
    table: dict[str, tuple[Reading, ...]] = {}
    for line in LINES.strip().splitlines():
        _, dimensions, factor, words = (field.strip() for field in line.split("|"))
        reading = (_dimensions(dimensions), Fraction(factor))
        for word in words.split():
            table[word] = (*table.get(word, ()), reading)
    return table


KNOWN = _table()
"""Word to readings; each is the dimensions and how many base units one of it is."""
CURRENCY_DIMENSIONS = frozenset(words("dollar euro sterling yen yuan rupee won rouble franc peso shekel"))
CURRENCY_SIGNS = ("US$", "\\$", "$", "€", "£", "¥", "₹", "₩", "₽", "₪", "Rs.", "Rs")
CURRENCY_CODES = ("USD", "EUR", "GBP", "JPY", "CNY", "RMB", "INR", "KRW", "RUB", "CHF", "MXN", "ILS")
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "万": 10**4,
    "亿": 10**8,
}
NOT_A_UNIT = frozenset(
    words("""
or and to not no minus plus times over mod point if when but between than more less per of by divided squared
cubed sqrt frac pi infty sin cos tan log ln exp cdot pm mp leq geq neq in cup dots ldots mathbf overline
remainder half halves third thirds quarter quarters fourths fifths sixths eighths tenths hundredths thousandths
is are was the answer where for with either only approximately about factorial choose am pm noon midnight base
percent percentage alpha beta gamma theta phi
january february march april may june july august september october november december
""")
)
CHINESE_NO_UNIT = "或和与及到至分之且又或者倍余"
