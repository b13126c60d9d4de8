"""Short words that mean something, and name no subject: `dreambooth identifiers` suggests none of them.

The paper's identifiers have at most three letters, and so have these.  The lists were written for this library, from no
other's; they are as free as its code.  What they leave out, a model's own answer still tells: a word that moves it much
is suggested last.
"""

from __future__ import annotations


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


WORDS = _listed("""
    aan ab abs ace act ad add ado age ago ah aha ai aid ail aim air aka ale all alp am amp an and ant any ape app
    apt arc are ark arm art as ash ask asp at ate auf aus aux avo aw awe ax axe ay aye baa bad bag ban bar bat bau
    bay baz be bed bee beg bei bet bev bf bff bib bid big bin bio bis bit bnw boa bob bod bog boo bop bot bow box
    boy bra bro bsc btw bub bud bug bum bun bus but buy by bye cab cam can cap car cat caw cea cel cep ces cet cgi
    chi cit cob cod cog con coo cop cos cot cow coy cpl cri cru cry cub cud cue cui cum cup cur cut cuz dab dad dam
    dap das day deg dei del dem den der des dew did die dig dim din dip dix do doc doe dog doi dop dos dot dry dub
    duc dud due dug duh dun duo dvd dye ear eat ebb eek eel egg ego eh ein eke ele elf elk ell elm els elu emp emu
    end ent env eon epi era erd ere erg err ese esq est etc ete ett eux eve ewe ex exe eye fab fac fad fag fan faq
    far fat fax fed fee fen feu few fey fez fib fig fin fir fit fix fle flu fly fob foe fog fop for fox fra fre fro
    fry fui fun fur fut fwd fyi gab gad gag gap gas gay gaz gel gem get gif gig gin gli glo gnu go god goo gor got
    gps gtx gui gum gun gut guy gym ha had hag haj ham han hap har has hat haw hay haz hdd he heh hem hen her hew
    hex hey hi hic hid him hin hip his hit hm ho hob hoe hog hoo hop hor hot how hoy hub hud hue hug huh hum hun hur
    hus hut hva ice ich icy idk ids if ihr ikk ilk ill ils imo imp in inc ind ink inn ion ire irk irl is ist it its
    ivy jab jag jam jap jar jaw jay jeg jet jew jig job jog jot joy jug jut kam kea keg ken key kgs khz kid kin kit
    koi kon lab lad lag lam lao lap las lav law lax lay lea led lee leg lei lek les let lib lid lie lip lit lob loc
    log loi lol loo lop los lot low lox ltd lug lui lun lup luz ma mad maj mal man map mar mas mat maw max may me
    med men meo mes met meu mew mhz mia mic mid mig min mir mis mix mms moa mob mod mog mol mom mon moo mop mow mph
    msg mth mts mud mug mum muy my nag nah nan nap naw nay nel net neu new ney nez nib nil nip nit nix no nod noe
    nog noh noi nor nos not nou now nub nun nur nut oaf oak oar oat obs oca och odd ode of off oft oh oil ok old omg
    on one oof ops opt or orb ore ork oui our ous out ova ow owe owl own owo ox oy pa pad pal pan pap par pas pat
    pau paw pay pea pee peg pen pep per pet pew pi pic pie pig pin pip pis pit pix pjs ply plz png pod pop por pot
    pov pow pox ppm pro pry pss pub pug pun pup pus put pvt qty qu que qui quo rag ram ran rap rat raw ray re rec
    red ref rei rep req rev rib rid rig rim rip rly rob roc rod roe roo rot row rub rue rug rum run rut rye sac sad
    sag sap sat saw say sci sea sec see seq ses set sew sex she shh shy sie sin sip sir sis sit six ski sky sly so
    sob sod sol som son sop sot sou sow soy spa spe spf spy src std str sua sub sud sue sul sum sun sup sur sus svc
    syn tab tad tag tan tap tar tau tax tbs tea tee teh tel ten tes the tho thx thy tic tie til tin tio tip tir tis
    tmr to tod toe tog toi tom ton too top tot tow toy tra tru try tsk tsp tua tub tug tus tut tux two tzu ube ugh
    uh uke um un una und uno uns up url urn us use utv uwu vac vad vai van var vat ved vet vex vfx via vid vie vim
    vit vol von vor vos vot vow vs wad wag wan war was wav wax way we web wed wee weg wet who why wie wif wig win
    wir wit wks woe wok won woo wow wry wtf wut xxl xxx yak yam yap yaw yay yds ye yea yen yep yes yet yew yey yip
    yo you yuh yum zap zen zip zit zoo zum zur
""")
"""Words of English, with what people write for words in messages and on labels, and the function words of Spanish,
French, German, Italian, Portuguese and the Scandinavian languages."""

NAMES = _listed("""
    aaf aau abb abc abd abe aby acm acu ada adm adp aed aew afd afg afl ahl ahn aib aig akb alf ali amy ana ann aoc
    aol aon apk apr arg arl atf att atv atz aug avn avs awd ayr bae bbc bbm bcn ben bgt bhp bhs bih bjj bkk bmc bmi
    bmo bmx bnp bol bpl bru brz btr bts btv bvb caf cai cbj cbr cbs ccd ccp cdc cdn cej cfa cfl cfo chf chn chp chr
    cia clc cmu cnn cny cpr cpt cpu cro crt csd csi csk csp csu cvs cze daf dan dav daz dbs dbz dc ddr dea deb dec
    dev dhl dji dmc dmv dmx dnd dns dod doj don dps dq dsc dsm dtm dua dui dvr ebt ecb ecg ecu edd edi eec efl egy
    eli emt epl ers eso esp etf eu eun eur eva evs fao fay fbi fcb fda fdr feb fei fes fgo fj fmr fps fri ftc ftp
    gai gbc gbp gbr gcc gdp ger gha ghc gla goa gog gow gpu gq gsk gsm gti gto gtr gts hal hbo hdr hei hiv hmv hpe
    hpv hrh hrt hrw hyo iaf ian icu ida idf iit ike imf inr iom ios ira irs isk isl iso isr ita itf itv ive ivf jad
    jal jan jcb jdm jeb jed jem jen jes jha jim jio jiu jlo joe jon joo jpg jpn jul jun kaa kai kat kau kay kbs kei
    kev kew kfc kik kim kkr klm koo kor ksa ksu ktm kv kz lat lbj lcd ldn lds leh len leo lew lex lfw lg lix liz lou
    lpg lrt lsd lse ltc lte luc lue mao mba mbe mcd mcu mei mel mep mex mfw mgm mgs mha mib mii mik mlb mls mma mmj
    mmo mnf mnl moc moz mri mrt msf msn mst mta mtv naz nds ned nep ngc ngo nhl nhs nia nih nlp nmd nme nov npc nsa
    nsf nsw nwa nwo nwt nyc nyo nyr nyt nyu obe ocd ocs oct oj opi orr otc otf oth otp owa ows oxo pam pba pbr pcb
    pci pdf pfw pga pgh phd phl php phx pll pnc pnw pol pos prc psd psg psn psp psv ptv pvc qat qbs qf qpr rae rba
    rbc rbs rca rcb rdr reo rex rgb rmb rms rna rnb rnc rog roh rok rom ron roy rsa rsd rss rtx rui ruk rus rwa rwc
    ryu sal sam sao sas sbk scs sdk seb sek sep sfa sfo shb sid slo slr sls smb smc smg smu sns spd sql srb srt ssd
    ssn ssr sui suv svt svu swe taj taz tcm tcu ted tfc tfl tha thu tia tim tko tls tms tmz tng tps trx tsa tsn ttc
    tue tur tvd tvs twa uae uas uav ubc ubs ucd uci ucl ufc uga uk ukr ulf uma umd ups urd uri uru usa usc usf usn
    ust utd utz uwe uy uz val vcr vfl vhs vic viv vix vk vlt vma vn vod vpn vr vss vw wbc wdw wec wes whl wii wnt
    wot wpg wps wsl wsu wta wvu xii xin xiv xml xrp xu xvi yao yaz yeo ypg ysl yui yvr zac zam zan zeb zia zim zoe
    zs zw
""")
"""People, places, days and months; and abbreviations of which the web has pictures: brands, clubs, games, films,
money, devices, offices, illnesses."""
