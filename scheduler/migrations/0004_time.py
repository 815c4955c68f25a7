import django.core.validators
import django.db.models.deletion
import scheduler.models.calendar
from django.conf import settings
from django.db import migrations, models
from django.utils import timezone


def keep_stale(apps, schema_editor):
    """Schedules that were marked for the poller stay marked, from now on."""
    apps.get_model("scheduler", "Schedule").objects.filter(stale=True).update(stale_at=timezone.now())


class Migration(migrations.Migration):

    dependencies = [
        ('scheduler', '0003_queue_indexes'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Alarm',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('late', 'late'), ('missed', 'missed'), ('bad_rule', 'bad rule')], max_length=10, verbose_name='kind')),
                ('at', models.DateTimeField(verbose_name='time')),
                ('text', models.TextField(blank=True, verbose_name='details')),
                ('told_at', models.DateTimeField(blank=True, null=True, verbose_name='told')),
            ],
            options={
                'verbose_name': 'alarm',
                'verbose_name_plural': 'alarms',
                'ordering': ['-id'],
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Calendar',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100, unique=True, verbose_name='name')),
                ('time_zone', models.CharField(default=scheduler.models.calendar.default_time_zone, max_length=64, validators=[scheduler.models.calendar.validate_time_zone], verbose_name='time zone')),
                ('lines', models.TextField(help_text='One a line: a date (2026-12-25), dates (2026-12-24..2027-01-01), a day of every year (12-25), days of the week (sat-sun), a time on them (daily 01:00-02:30), or a long window (fri 18:00 - mon 06:00).', verbose_name='blocked times')),
            ],
            options={
                'verbose_name': 'calendar',
                'verbose_name_plural': 'calendars',
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='FollowUp',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('on', models.CharField(choices=[('completes', 'completes'), ('fails', 'fails, and is not tried again'), ('ends', 'ends in any way')], default='completes', max_length=10, verbose_name='when it')),
            ],
            options={
                'verbose_name': 'follow-up',
                'verbose_name_plural': 'follow-ups',
                'ordering': ['task', 'id'],
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='SchedulerState',
            fields=[
                ('paused_at', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='paused')),
                ('paused_by_name', models.CharField(blank=True, editable=False, max_length=150)),
                ('pause_reason', models.CharField(blank=True, editable=False, max_length=300, verbose_name='why it is paused')),
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
            ],
            options={
                'verbose_name': 'scheduler',
                'verbose_name_plural': 'scheduler',
                'permissions': [('pause_all', 'Can pause and resume the whole scheduler')],
                'default_permissions': (),
            },
        ),
        migrations.AddField(
            model_name='run',
            name='attempt',
            field=models.PositiveSmallIntegerField(default=1, verbose_name='attempt'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='catch_up',
            field=models.CharField(choices=[('once', 'run once for all of them'), ('all', 'run each of them'), ('skip', 'run none of them')], default='once', help_text='What to do about slots that passed while no poller was up.', max_length=10, verbose_name='missed slots'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='catch_up_limit',
            field=models.PositiveSmallIntegerField(default=10, help_text='For “run each of them”: so many of the latest.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(500)], verbose_name='of them at most'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='jitter_seconds',
            field=models.PositiveIntegerField(default=0, help_text='Each run starts up to so many seconds after its slot, so that not all start at once.', validators=[django.core.validators.MaxValueValidator(86400)], verbose_name='spread (seconds)'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='max_lateness_seconds',
            field=models.PositiveIntegerField(blank=True, help_text='A slot that cannot be decided within this time is not run; empty: better late than never.', null=True, verbose_name='too late after (seconds)'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='pause_reason',
            field=models.CharField(blank=True, editable=False, max_length=300, verbose_name='why it is paused'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_at',
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='paused'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_by',
            field=models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='paused by'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='paused_by_name',
            field=models.CharField(blank=True, editable=False, max_length=150),
        ),
        migrations.AddField(
            model_name='schedule',
            name='covered_until',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='schedule',
            name='stale_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.RunPython(keep_stale, migrations.RunPython.noop),
        migrations.RemoveIndex(
            model_name='schedule',
            name='scheduler_schedule_stale',
        ),
        migrations.RemoveField(
            model_name='schedule',
            name='stale',
        ),
        migrations.AddField(
            model_name='task',
            name='after_failure',
            field=models.CharField(choices=[('keep', 'keep the schedule'), ('pause', 'pause the schedule')], default='keep', help_text='When no retry is left. A paused schedule runs nothing until a person resumes it.', max_length=10, verbose_name='after the last failure'),
        ),
        migrations.AddField(
            model_name='task',
            name='alarm_addressees',
            field=models.TextField(blank=True, help_text='E-mail addresses, one a line, of those who are told of late and missed runs.', verbose_name='alarms to'),
        ),
        migrations.AddField(
            model_name='task',
            name='late_after_seconds',
            field=models.PositiveIntegerField(blank=True, help_text='A run that still waits so long after it was due raises an alarm; empty: none does.', null=True, validators=[django.core.validators.MinValueValidator(1)], verbose_name='late after (seconds)'),
        ),
        migrations.AddField(
            model_name='task',
            name='max_runs',
            field=models.PositiveSmallIntegerField(default=1, help_text='For “allow some at once”: how many. Otherwise it is one.', validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000)], verbose_name='runs at once'),
        ),
        migrations.AddField(
            model_name='task',
            name='overlap',
            field=models.CharField(choices=[('skip', 'skip the new one'), ('queue', 'let one wait'), ('stop', 'stop the old one'), ('allow', 'allow some at once')], default='skip', help_text='What to do when a slot comes due while a run of this task is not over.', max_length=10, verbose_name='overlap'),
        ),
        migrations.AddField(
            model_name='task',
            name='pause_reason',
            field=models.CharField(blank=True, editable=False, max_length=300, verbose_name='why it is paused'),
        ),
        migrations.AddField(
            model_name='task',
            name='paused_at',
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name='paused'),
        ),
        migrations.AddField(
            model_name='task',
            name='paused_by',
            field=models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='paused by'),
        ),
        migrations.AddField(
            model_name='task',
            name='paused_by_name',
            field=models.CharField(blank=True, editable=False, max_length=150),
        ),
        migrations.AddField(
            model_name='task',
            name='retries',
            field=models.PositiveSmallIntegerField(default=0, help_text='How often a failed run is tried again, also one whose end nobody saw and that may have run.', validators=[django.core.validators.MaxValueValidator(100)], verbose_name='retries'),
        ),
        migrations.AddField(
            model_name='task',
            name='retry_delay_seconds',
            field=models.PositiveIntegerField(default=60, help_text='Between a failure and the first retry.', validators=[django.core.validators.MaxValueValidator(604800)], verbose_name='retry after (seconds)'),
        ),
        migrations.AddField(
            model_name='task',
            name='retry_factor',
            field=models.FloatField(default=1.0, help_text='Each later retry waits so many times as long as the one before it; 1: always as long.', validators=[django.core.validators.MinValueValidator(1.0), django.core.validators.MaxValueValidator(10.0)], verbose_name='back-off'),
        ),
        migrations.AlterField(
            model_name='run',
            name='reason',
            field=models.CharField(blank=True, choices=[('exit_code', 'exit code'), ('signal', 'signal'), ('timed_out', 'timed out'), ('launch_error', 'launch error'), ('lost', 'lost'), ('stopped_by_user', 'stopped by a user'), ('overlap', 'overlap'), ('replaced', 'replaced'), ('catch_up', 'catch-up'), ('missed', 'missed'), ('too_late', 'too late'), ('blocked', 'blocked'), ('bad_rule', 'bad rule'), ('paused', 'paused'), ('schedule_gone', 'schedule deleted')], max_length=20, verbose_name='reason'),
        ),
        migrations.AlterField(
            model_name='run',
            name='trigger',
            field=models.CharField(choices=[('schedule', 'schedule'), ('manual', 'started by a user'), ('again', 'run again'), ('retry', 'retry'), ('follow_up', 'follow-up')], default='schedule', max_length=10, verbose_name='trigger'),
        ),
        migrations.AlterField(
            model_name='runevent',
            name='what',
            field=models.CharField(choices=[('queued', 'queued'), ('decided', 'decided'), ('claimed', 'claimed by a poller'), ('started', 'program started'), ('message', 'message'), ('stop_requested', 'stop requested'), ('finished', 'finished'), ('not_collected', 'file not collected'), ('processes_ended', 'left-over processes ended'), ('launched_again', 'launched again'), ('recovered', 'recovered from its run folder'), ('retry_queued', 'retry queued'), ('schedule_paused', 'schedule paused'), ('follow_up_left_out', 'follow-up left out, its task is disabled'), ('reports_dropped', 'reports dropped')], max_length=20, verbose_name='what'),
        ),
        migrations.AddField(
            model_name='alarm',
            name='run',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='alarms', to='scheduler.run', verbose_name='run'),
        ),
        migrations.AddField(
            model_name='alarm',
            name='schedule',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='scheduler.schedule', verbose_name='schedule'),
        ),
        migrations.AddField(
            model_name='alarm',
            name='task',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='alarms', to='scheduler.task', verbose_name='task'),
        ),
        migrations.AddField(
            model_name='schedule',
            name='calendar',
            field=models.ForeignKey(blank=True, help_text='A slot within its dates and times is skipped.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='schedules', to='scheduler.calendar', verbose_name='blackout calendar'),
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(condition=models.Q(('stale_at__isnull', False)), fields=['id'], name='scheduler_schedule_edited'),
        ),
        migrations.AddField(
            model_name='followup',
            name='task',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='follow_ups', to='scheduler.task', verbose_name='task'),
        ),
        migrations.AddField(
            model_name='followup',
            name='then',
            field=models.ForeignKey(help_text='It runs with its own arguments, as soon as there is a place.', on_delete=django.db.models.deletion.CASCADE, related_name='follows', to='scheduler.task', verbose_name='run then'),
        ),
        migrations.AddField(
            model_name='schedulerstate',
            name='paused_by',
            field=models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='paused by'),
        ),
        migrations.AddIndex(
            model_name='alarm',
            index=models.Index(condition=models.Q(('told_at', None)), fields=['id'], name='scheduler_alarm_untold'),
        ),
        migrations.AddConstraint(
            model_name='alarm',
            constraint=models.UniqueConstraint(fields=('run', 'kind'), name='scheduler_alarm_once'),
        ),
        migrations.AddConstraint(
            model_name='followup',
            constraint=models.UniqueConstraint(fields=('task', 'on', 'then'), name='scheduler_followup_once'),
        ),
        migrations.AddConstraint(
            model_name='followup',
            constraint=models.CheckConstraint(condition=models.Q(('then', models.F('task')), _negated=True), name='scheduler_followup_not_itself', violation_error_message='A task cannot follow itself: it would run for ever.'),
        ),
        migrations.AddConstraint(
            model_name='schedulerstate',
            constraint=models.CheckConstraint(condition=models.Q(('id', 1)), name='scheduler_state_is_one_row'),
        ),
    ]
