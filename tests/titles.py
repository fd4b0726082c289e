"""Titles of real songs and other works, by the code page in which old programs wrote them.

They measure whether a text of unannounced encoding is read right, or left out, but never read wrong.
"""

TITLES: dict[str, tuple[str, ...]] = {
    # German
    "cp1252 de": (
        *(
            "99 Luftballons für Düsseldorf",
            "Über den Wolken",
            "Für Elise",
            "Männer",
            "Das Model",
            "Schöne Müllerin",
        ),
        *("Götterdämmerung", "Die Zauberflöte", "Der Freischütz", "Hänsel und Gretel", "Grüße aus München"),
        *(
            "Gute Nacht, Freunde",
            "Der Hölle Rache kocht in meinem Herzen",
            "Fräulein Menke",
            "Tür zu",
            "Weiße Rosen",
        ),
        *("Mädchen", "Größenwahn", "Süßer die Glocken nie klingen", "Ein Männlein steht im Walde"),
    ),
    # French
    "cp1252 fr": (
        *(
            "La bohème",
            "Non, je ne regrette rien",
            "Je t'aime… moi non plus",
            "Voilà",
            "Été",
            "À la claire fontaine",
        ),
        *(
            "Les feuilles mortes à Paris",
            "Hymne à l'amour",
            "Déshabillez-moi",
            "Été indien",
            "Élisa",
            "Ça ira",
        ),
        *("Prélude à l'après-midi d'un faune", "Le déserteur", "Là-bas", "Comme d'habitude, c'était hier"),
        *("Carnaval des animaux: Le cygne blessé", "Gymnopédie n° 1", "Boléro", "Les Misérables", "Garçon"),
    ),
    # Spanish
    "cp1252 es": (
        *(
            "Corazón partío",
            "España cañí",
            "Bésame mucho",
            "La canción del mariachi",
            "Macarena de Sevilla, olé",
        ),
        *("Ojalá", "Año nuevo", "El niño", "Mañana", "Qué será", "Cómo te extraño mi amor", "Adiós Nonino"),
        *(
            "Volver a los diecisiete años",
            "La flaca de Perú",
            "Señorita",
            "Libertango en Bogotá",
            "Música ligera",
        ),
    ),
    # Portuguese
    "cp1252 pt": (
        *(
            "Águas de março",
            "Garota de Ipanema é assim",
            "Coração",
            "Construção",
            "Canção do mar",
            "Não quero dinheiro",
        ),
        *(
            "Mas que nada, São Paulo",
            "Você é linda",
            "Samba da bênção",
            "Lágrima",
            "A felicidade não tem fim",
        ),
    ),
    # Swedish, Norwegian, Danish, Finnish
    "cp1252 nordic": (
        *(
            "Dansa i neon på Öland",
            "Än är det sommar",
            "Visa från Utanmyra",
            "Sånt är livet",
            "Den blomstertid nu kommer på",
        ),
        *(
            "Säkkijärven polkka",
            "Hyvää yötä",
            "Kjærlighet",
            "Å leva, det er å elska",
            "Rødgrød med fløde",
            "Høstvise",
        ),
    ),
    # Polish
    "cp1250 pl": (
        *(
            "Żółta łódź podwodna",
            "Jesteś szalona",
            "Dziwny jest ten świat",
            "Małe tęsknoty",
            "Czas nas uczy pogody, żegnaj",
        ),
        *(
            "Kołysanka dla okruszka",
            "Chcę oglądać twoje nogi",
            "Nie płacz Ewka",
            "Autobiografia śląska",
            "Miłość",
        ),
        *(
            "Jaskółka uwięziona",
            "Bądź moim natchnieniem",
            "Z tobą chcę oglądać świat",
            "Długość dźwięku samotności",
        ),
        *(
            "Małgośka",
            "Ale wkoło jest wesoło, ćmy",
            "Biała flaga",
            "Zegarmistrz światła",
            "Pieśń o ziemi naszej",
        ),
    ),
    # Czech
    "cp1250 cs": (
        *(
            "Symfonie č. 9 „Z nového světa“",
            "Příběh nekončí",
            "Žárlivý kakadu",
            "Má vlast: Vltava",
            "Tři kříže",
            "Dvořák",
        ),
        *(
            "Lásko má, já stůňu",
            "Sluneční hrob",
            "Až se k nám právo vrátí",
            "Skřivánek",
            "Jožin z bažin",
            "Růže",
        ),
        *("Bílá orchidej", "Dívka s perlami ve vlasech", "Řekni, kde ty kytky jsou", "Včera neděle byla"),
    ),
    # Hungarian
    "cp1250 hu": (
        *(
            "Gyöngyhajú lány",
            "Szomorú vasárnap",
            "Kék a szeme, őszi fény",
            "Tavaszi szél vizet áraszt",
            "Nélküled",
        ),
        *("Hét nap a hosszú út", "Mondd, kis kócos ég", "Elment az idő"),
    ),
    # Turkish
    "cp1254 tr": (
        *(
            "Şımarık",
            "Dünya dönüyor",
            "Gülümse, kaderine",
            "Gözleri aşka gülen",
            "İstanbul'da sonbahar",
            "Üsküdar'a gider iken",
        ),
        *(
            "Ağlama değmez hayat",
            "Yalnızlık senfonisi",
            "Bir gün belki hayattan",
            "Kış güneşi",
            "Sen ağlama",
            "Dağlar kızı",
        ),
    ),
    # Russian
    "cp1251 ru": (
        *(
            "Группа крови",
            "Звезда по имени Солнце",
            "Катюша",
            "Подмосковные вечера",
            "Миллион алых роз",
            "Калинка",
        ),
        *(
            "Ой, мороз, мороз",
            "Очи чёрные",
            "Лебединое озеро",
            "Времена года: Июнь. Баркарола",
            "Всё идёт по плану",
        ),
        *(
            "Белые розы",
            "Осень",
            "Город золотой",
            "Дорогой длинною",
            "Кукушка",
            "Перемен!",
            "Прощание славянки",
        ),
        *("Песня о друге", "Вдоль по Питерской", "Что такое осень", "Спокойной ночи, малыши", "Ночь"),
    ),
    # Ukrainian
    "cp1251 uk": (
        *(
            "Червона рута",
            "Щедрик",
            "Ой у лузі червона калина",
            "Обійми",
            "Несе Галя воду",
            "Там, де нас нема",
        ),
        *("Ще не вмерла України", "Місяць на небі", "Їхав козак за Дунай", "Чорнобривці"),
    ),
    # Bulgarian
    "cp1251 bg": (
        *(
            "Една българска роза",
            "Облаче ле бяло",
            "Излел е Дельо хайдутин",
            "Моя страна, моя България",
            "Ветрове",
        ),
    ),
    # Greek
    "cp1253 el": (
        *(
            "Τα παιδιά του Πειραιά",
            "Συννεφιασμένη Κυριακή",
            "Μισιρλού",
            "Ζορμπάς",
            "Το άγαλμα",
            "Της αγάπης αίματα",
        ),
        *("Ένας αητός", "Στο περιγιάλι το κρυφό", "Άσπρη μέρα και για μας", "Χάρτινο το φεγγαράκι", "Ύμνος"),
    ),
    # Hebrew
    "cp1255 he": (
        *(
            "ירושלים של זהב",
            "הבה נגילה",
            "עוד לא אהבתי די",
            "שיר לשלום",
            "אני ואתה",
            "לילה טוב",
            "התקווה",
            "חורף 73",
        ),
    ),
    # Arabic
    "cp1256 ar": (
        *("نسم علينا الهوى", "إنت عمري", "قارئة الفنجان", "زهرة المدائن", "حبيبي يا نور العين", "الأطلال"),
    ),
    # Thai
    "cp874 th": ("ลอยกระทง", "เพลงชาติไทย", "ใกล้รุ่ง", "สายฝน", "รักคุณเท่าฟ้า"),
    # Japanese
    "cp932 ja": (
        *(
            "上を向いて歩こう",
            "さくらさくら",
            "川の流れのように",
            "津軽海峡・冬景色",
            "世界に一つだけの花",
            "涙そうそう",
        ),
        *(
            "いつも何度でも",
            "残酷な天使のテーゼ",
            "千本桜",
            "夜に駆ける",
            "君をのせて",
            "となりのトトロ",
            "赤とんぼ",
        ),
        *(
            "Lemon (レモン)",
            "ハナミズキ",
            "イエスタデイ",
            "粉雪",
            "宇宙戦艦ヤマト",
            "春よ、来い",
            "紅蓮華",
            "恋",
            "花",
        ),
        *("時の流れに身をまかせ", "ドライフラワー", "ふるさと", "荒城の月", "六甲おろし"),
    ),
    # Chinese, simplified
    "gbk zh": (
        *(
            "月亮代表我的心",
            "甜蜜蜜",
            "茉莉花",
            "义勇军进行曲",
            "青花瓷",
            "夜曲",
            "东风破",
            "小苹果",
            "二泉映月",
            "童年",
        ),
        *(
            "北京欢迎你",
            "朋友",
            "同桌的你",
            "大海",
            "我的祖国",
            "梁祝小提琴协奏曲",
            "告白气球",
            "后来",
            "红豆",
            "光辉岁月",
        ),
        *(
            "但愿人长久",
            "听妈妈的话",
            "平凡之路",
            "十年",
            "黄河大合唱",
            "春江花月夜",
            "高山流水",
            "最炫民族风",
        ),
    ),
    # Chinese, traditional
    "cp950 zh": (
        *(
            "月亮代表我的心",
            "海闊天空",
            "千里之外",
            "龍的傳人",
            "橄欖樹",
            "愛拼才會贏",
            "雨夜花",
            "望春風",
            "淚光閃閃",
        ),
        *(
            "滄海一聲笑",
            "上海灘",
            "獅子山下",
            "後來",
            "甜蜜蜜",
            "聽海",
            "晴天",
            "讓我們看雲去",
            "外婆的澎湖灣",
        ),
    ),
    # Korean
    "cp949 ko": (
        *(
            "강남스타일",
            "아리랑",
            "애국가",
            "사랑했지만",
            "봄날",
            "너의 의미",
            "광화문에서",
            "서울의 달",
            "이별의 부산정거장",
        ),
        *(
            "돌아와요 부산항에",
            "그대에게",
            "벚꽃 엔딩",
            "눈의 꽃",
            "거짓말",
            "좋은 날",
            "가시나무",
            "비와 당신",
            "나는 나비",
        ),
    ),
}
