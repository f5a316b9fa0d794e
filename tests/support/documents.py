"""Documents as the programs of this world write them."""

import io
import zipfile

import docx
import openpyxl
import pptx
import pypdf
from fpdf import FPDF

SENTENCE = "The quay is 400 m long."


def make_pdf(text: str = SENTENCE) -> bytes:
    document = FPDF()
    document.set_title("Harbour rules")
    document.add_page()
    document.set_font("Helvetica", size=12)
    document.cell(text=text)
    return bytes(document.output())


def make_encrypted_pdf() -> bytes:
    writer, data = pypdf.PdfWriter(), io.BytesIO()
    writer.append(pypdf.PdfReader(io.BytesIO(make_pdf())))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(data)
    return data.getvalue()


def make_pdf_without_text() -> bytes:
    document = FPDF()
    document.add_page()
    document.rect(10, 10, 50, 50)
    return bytes(document.output())


def make_docx(text: str = SENTENCE) -> bytes:
    document, data = docx.Document(), io.BytesIO()
    document.add_heading("Harbour rules", 1)
    document.add_paragraph(text)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "berth", "seven"
    document.save(data)
    return data.getvalue()


def make_pptx() -> bytes:
    slides, data = pptx.Presentation(), io.BytesIO()
    slide = slides.slides.add_slide(slides.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Harbour rules", SENTENCE
    slides.save(data)
    return data.getvalue()


def make_xlsx() -> bytes:
    book, data = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["rule", SENTENCE])
    book.active.append(["berth", 7])
    book.save(data)
    return data.getvalue()


def make_html(encoding: str = "utf-8") -> bytes:
    return (
        f"<!DOCTYPE html><html><head><meta charset={encoding}><title>Rules</title></head>"
        f"<body><h1>码头规则与潮汐表</h1><p>{SENTENCE}</p><script>steal()</script></body></html>"
    ).encode(encoding)


def with_part(package: bytes, part: str, change) -> bytes:
    """An Office document with one of its parts replaced."""
    data = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(package)) as old,
        zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == part else content)
    return data.getvalue()


def make_bomb() -> bytes:
    """Less than a megabyte that unpacks to a few hundred."""
    paragraph = b"<w:p><w:r><w:t>aaaaaaaa</w:t></w:r></w:p>"
    return with_part(
        make_docx(),
        "word/document.xml",
        lambda xml: xml.replace(b"<w:body>", b"<w:body>" + paragraph * 6_000_000),
    )


def make_deep() -> bytes:
    """Elements within elements, deeper than a recursive reader's stack."""
    depth = 200_000
    return with_part(
        make_docx(),
        "word/document.xml",
        lambda xml: xml.replace(b"<w:body>", b"<w:body>" + b"<w:tbl>" * depth + b"</w:tbl>" * depth),
    )


def make_billion_laughs() -> bytes:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    head = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{entities}]>'.encode()
    return with_part(
        make_docx(),
        "word/document.xml",
        lambda xml: head + xml.partition(b"?>")[2].replace(b"400", b"&a9;"),
    )
