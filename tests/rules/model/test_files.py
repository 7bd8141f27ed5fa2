import json

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import Files
from txmux.rules.problems import Problem

_PROBLEM = Problem("a.ini", 2, "listen a", "endpoint", "is taken")


class FilesTest(SynchronousTestCase):
    def sent(self, problem: Problem) -> tuple[Files, str]:
        texts, included = {"rules.ini": "x", "a.ini": ""}, {"*.ini": ["a.ini"]}
        files = Files(texts, included, {"HOME": None}, {"a.ini": (problem,)})
        return files, json.dumps(files.as_json())

    def test_what_another_process_is_sent_is_the_same_there(self) -> None:
        for problem in (_PROBLEM, _PROBLEM.lost_to("b.ini", 3)):
            files, text = self.sent(problem)
            read = Files.from_json(json.loads(text))
            self.assertEqual((read.untaken, json.dumps(read.as_json())), (files.untaken, text))
        # A newer one may say more of files, and of what is wrong with a unit: a helper lives across upgrades. An older one is told of nothing that is as usual, which it may not know.
        files, text = self.sent(_PROBLEM)
        data = json.loads(text)
        data["untaken"]["a.ini"][0]["is_claimed"] = data["of another version"] = True
        self.assertEqual(Files.from_json(data).untaken, files.untaken)
        _, text = self.sent(_PROBLEM)
        wanted = {"path", "line", "section", "key", "message"}
        self.assertEqual(json.loads(text)["untaken"]["a.ini"][0].keys(), wanted)
