"""The tables, with three answers in one."""

from django.db import migrations, models


def fill(apps, schema_editor):
    choice = apps.get_model("poll", "Choice")
    choice.objects.bulk_create(choice(text=text) for text in ("Tea", "Coffee", "Water"))


class Migration(migrations.Migration):
    initial = True
    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="Choice",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("text", models.CharField(max_length=100)),
                ("votes", models.PositiveIntegerField(default=0)),
            ],
            options={"ordering": ("pk",)},
        ),
        migrations.CreateModel(
            name="Vote",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("visitor", models.CharField(max_length=40, unique=True)),
                ("choice", models.ForeignKey("poll.Choice", models.CASCADE)),
            ],
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
